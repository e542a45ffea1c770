"""GitHub's REST API, as far as a merge gate needs it; imported only by the commands that use it."""
