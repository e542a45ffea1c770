"""Entry point: ``python -I -B start.py FD`` with a job as JSON on standard input.

``start.py serve FD`` runs many such jobs, each in a child that is forked for it.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent


def _load_package() -> None:
    """Import this folder as a package whose name cannot clash with one of the candidate's."""
    spec = importlib.util.spec_from_file_location(
        "_tiergate_probe", _HERE / "__init__.py", submodule_search_locations=[str(_HERE)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["_tiergate_probe"] = package
    spec.loader.exec_module(package)


def main() -> None:
    """Run one job and write its closing record."""
    _load_package()
    leave = None
    if sys.argv[1] == "serve":
        ahead = importlib.import_module("_tiergate_probe.ahead").Ahead()
        with ahead.recording():
            server = importlib.import_module("_tiergate_probe.server")
        descriptor, leave = server.next_job(int(sys.argv[2]), ahead), server.leave
    else:
        descriptor = int(sys.argv[1])
    records = importlib.import_module("_tiergate_probe.records")
    job = json.load(sys.stdin)
    # The job holds the nonce: candidate code, and what it starts, gets an empty standard input.
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    channel = records.Channel(descriptor, job["nonce"])
    task = importlib.import_module("_tiergate_probe." + job["kind"])
    inputs = None
    if job.get("tell-inputs"):
        module = importlib.import_module("_tiergate_probe.inputs")
        inputs = module.Inputs(job["repository"], job["pythonpath"])
        inputs.start()
    sys.argv[1:] = []
    sys.path[:0] = job["pythonpath"]
    status = task.run(job, channel)
    if job.get("tell-modules"):
        installed = importlib.import_module("_tiergate_probe.ahead").installed_modules()
        rewritten = importlib.import_module("_tiergate_probe.rewritten").rewritten_files()
        channel.send("modules", names=installed, rewritten=rewritten)
    if inputs is not None:
        inputs.send(channel)
    channel.close(status)
    if leave is not None:
        leave()


if __name__ == "__main__":
    main()
