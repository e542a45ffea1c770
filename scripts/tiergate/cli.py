"""Parses the command line and dispatches: a command's module is imported when it is used."""

from __future__ import annotations

import atexit
import errno
import gc
import importlib
import io
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import click

from tiergate import __version__
from tiergate.errors import ExitCode, UserError

GROUPS: Mapping[str, Mapping[str, str]] = {
    "Judge": {
        "run": "Judge this repository: run the criteria and decide.",
        "decide": "Put the reports of all legs together and decide.",
        "report": "Show reports as HTML, JUnit, SARIF, Markdown and more.",
        "prove": "Show that every criterion can fail: try changes that must turn it red.",
    },
    "Begin": {
        "init": "Look at a repository and write its first gate, with true numbers.",
        "doctor": "Check this machine, or with --github whether a red gate blocks a merge.",
        "validate": "Check specs without judging anything: for editors and pre-commit.",
        "protect": "Make the gate a required check on GitHub.",
    },
    "When it is red": {
        "explain": "Say what a criterion means and how to reproduce it.",
        "plan": "Show the cells and waves, or in which order to mend what failed.",
        "fix": "Mend what a criterion found, where a program can.",
        "update": "Take over new numbers of tests after a deliberate change.",
        "waive": "Write a waiver into the spec: a failure that is accepted until a date.",
    },
    "Look back": {
        "status": "Show where each tier and criterion stands, since when, and what is open.",
        "history": "Show how long runs took, the slowest tests and the flaky ones.",
        "cache": "Show or forget the verdicts kept of earlier runs; why a cell is evaluated again.",
    },
    "Tools": {
        "schema": "Print the JSON schema of gate.yaml, report.json or proof.json.",
        "completion": "Print the completion of tiergate's words for bash, zsh or fish.",
    },
}
"""What the help lists, by what people come for."""

COMMANDS: Mapping[str, str] = {
    name: summary for group in GROUPS.values() for name, summary in group.items()
}

_EPILOG = """\b
Examples:
  tiergate init                      look, measure, write a first gate
  tiergate run                       judge the repository you are in
  tiergate explain ISS-003           what a criterion means, and who mends it
  tiergate report --to html -o report.html

\b
Exit codes:
  0  the gate passed
  1  the gate failed
  2  the spec or the command line is wrong
  3  the gate could not be evaluated: a crash, no device, a missing report

\b
Environment:
  NO_COLOR        no colour, links or live table
  VIRTUAL_ENV     the candidate's environment, where --python names none
  TIERGATE_CACHE  0: evaluate every cell; 1: take the cache under CI as well
  XDG_CACHE_HOME  where verdicts and the history of runs are kept

Every command has its own page: tiergate COMMAND --help.
"""


class _Commands(click.Group):
    """A group that knows its commands' names and imports their modules on demand."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"tiergate.commands.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            from tiergate.suggest import did_you_mean  # noqa: PLC0415 - only a mistake pays for it

            ctx.fail(f"No such command {args[0]!r}.{did_you_mean(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        width = max(map(len, COMMANDS))
        for title, commands in GROUPS.items():
            with formatter.section(title):
                # Names are padded, so that the groups have one column.
                formatter.write_dl([(name.ljust(width), said) for name, said in commands.items()])


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_EPILOG,
)
@click.version_option(__version__, prog_name="tiergate")
def tiergate() -> None:
    """A merge gate that cannot go green by accident.

    The criteria stand in gate.yaml; `tiergate run` judges the repository you are in.
    """


_YOUNG = 50_000
"""Objects after which garbage is looked for: imports alone make far more than the usual 700."""


_OF_THE_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
"""A full disk, a folder that may not be written: no fault of the program, so no traceback."""


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit by the contract."""
    gc.set_threshold(_YOUNG)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show a character must not turn a verdict into a crash.
            stream.reconfigure(errors="backslashreplace")
    try:
        if sys.stderr is None:  # else the next file that is opened would take its place
            sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - until the process ends
        if sys.stdout is None:
            click.echo(
                "tiergate: standard output is closed; /dev/null takes what is not wanted", err=True
            )
            code: int = ExitCode.NOT_EVALUATED
        else:
            code = run(arguments)
    except OSError:  # standard error takes no word either: the exit code is all that is left
        code = ExitCode.NOT_EVALUATED
    _end(code)


def _end(code: int) -> NoReturn:
    """End as the interpreter does, but leave the memory to the kernel.

    To tear all the modules down takes a tenth of a run in which nothing had changed.
    """
    if threading := sys.modules.get("threading"):
        threading._shutdown()  # noqa: SLF001 - waits for threads, as the interpreter does
    atexit._run_exitfuncs()  # noqa: SLF001 - as above
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except OSError:
        code = ExitCode.NOT_EVALUATED  # what was not written must not look like a pass
    os._exit(code)


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    try:
        if instruction := os.environ.get("_TIERGATE_COMPLETE"):
            return _complete(instruction)
        # Not tiergate.main(): it would end a broken pipe with the exit code of a failed gate.
        words = sys.argv[1:] if arguments is None else list(arguments)
        with tiergate.make_context("tiergate", words) as context:
            return ExitCode(tiergate.invoke(context))
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("tiergate: interrupted", err=True)
        return ExitCode.NOT_EVALUATED
    except click.ClickException as mistake:
        mistake.show()
        return ExitCode.USAGE
    except UserError as mistake:
        click.echo(str(mistake) if mistake.located else f"tiergate: {mistake}", err=True)
        return mistake.exit_code
    except BrokenPipeError:
        # Nobody reads the decision any more; it must not look like a pass.
        sys.stdout = None
        return ExitCode.NOT_EVALUATED
    except (Exception, SystemExit) as fault:  # noqa: BLE001 - ours or a checker's: red as well
        if isinstance(fault, OSError) and fault.errno in _OF_THE_MACHINE:
            place = fault.filename or "standard output"
            click.echo(f"tiergate: {place}: {fault.strerror}", err=True)
            return ExitCode.NOT_EVALUATED
        import traceback  # noqa: PLC0415 - only for a fault

        traceback.print_exc()
        click.echo("tiergate: internal error; please report it with the lines above", err=True)
        return ExitCode.NOT_EVALUATED


def _complete(instruction: str) -> int:
    """Answer a shell that completes a word; see ``tiergate completion``."""
    from click.shell_completion import shell_complete  # noqa: PLC0415 - only shells ask for it

    return shell_complete(tiergate, {}, "tiergate", "_TIERGATE_COMPLETE", instruction)
