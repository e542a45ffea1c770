"""The mistakes that a user can mend, and the exit codes of the contract."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a command's exit status means."""

    PASSED = 0
    FAILED = 1
    USAGE = 2
    NOT_EVALUATED = 3


class UserError(Exception):
    """A wrong spec or command line: printed as it is, without a traceback; exit code 2."""

    exit_code = ExitCode.USAGE
    located = False
    """Whether each line begins with its place, as editors and problem matchers read it."""


class NotEvaluatedError(UserError):
    """The gate could not be evaluated for a reason outside the spec; exit code 3."""

    exit_code = ExitCode.NOT_EVALUATED
