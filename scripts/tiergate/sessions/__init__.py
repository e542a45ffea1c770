"""Sessions of pytest in the candidate's interpreter; shared by the checkers that need one."""
