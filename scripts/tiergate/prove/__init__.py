"""Counter-examples: every criterion must be shown able to fail."""
