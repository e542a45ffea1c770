"""Stands in for ``environments.py`` where no package index is at hand.

All is the real script's, which lies beside this as ``real_environments.py``, but for the one step
that installs packages: the environments borrow those of the interpreter that runs this.
"""

import sys

import real_environments as real


def borrow(environment: real.Environment, fingerprint: str) -> None:
    programs = environment.path / "bin"
    programs.mkdir(parents=True)
    python = programs / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    if environment.editable:
        project = environment.pyproject.parent
        tiergate = programs / "tiergate"
        # act says itself where GitHub's API is, whatever it is told.
        api = 'GITHUB_API_URL="${ACT_API:-$GITHUB_API_URL}"'
        tiergate.write_text(
            f'#!/bin/sh\n{api} PYTHONPATH="{project}" exec "{python}" -m tiergate "$@"\n'
        )
        tiergate.chmod(0o755)


real._make = borrow
sys.exit(real.main(sys.argv[1:]))
