"""What GitHub is to the workflow: a server with a repository, a runner, a few actions."""
