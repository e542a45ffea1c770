"""One module per subcommand, each with a click ``command`` that returns the exit code."""
