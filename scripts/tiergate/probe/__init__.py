"""Runs inside the candidate's interpreter: standard library and pytest only, Python 3.9+.

Started by path, in isolated mode, so that nothing needs to be installed there and nothing of the
candidate's environment variables or working directory can stand in for it.
"""
