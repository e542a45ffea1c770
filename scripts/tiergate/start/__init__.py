"""What ``tiergate init`` does: look at a repository, measure it, write its first gate."""
