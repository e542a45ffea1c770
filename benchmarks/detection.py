"""Finding unsafe loads: what each detector finds, misses and flags wrongly, and what that costs.

    scripts/bench detection [--detectors FOLDER] [--tree FOLDER] [--write]

The labelled cases of ``detection_corpus`` are written out as one repository, and each detector
reports on all of it: the grep of a checklist, Bandit, TorchFix, and the gate by its own command.
Bandit and TorchFix are in the environment ``comparisons``, which scripts/bench makes; where they
are not installed that is said. Times are CPU seconds of the whole command, children included; the
gate's with --isolation process, since nothing here needs an interpreter that has imported torch.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "gate")]

import detection  # noqa: E402 - the labels are read as the tests read them

VENVS = Path(os.environ.get("TIERGATE_VENVS") or ROOT / ".venvs")
PAGE = ROOT / "docs" / "detection.md"
OURS = Path(sys.executable).parent / "tiergate"
PARTS = ("cases", "times")
GATE = """gate: TIER 0
devices: [cpu]
criteria:
  - id: loads
    uses: semgrep
    timeout: 600
    with: {rules: [unsafe-torch-load], paths: [PATH]}
"""
SHOWN = 12
"""Names of cases in a row of the table of misses."""


@dataclass
class Reports:
    """What a detector said of a folder."""

    places: set[tuple[str, int]] = field(default_factory=set)
    unreadable: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Detector:
    """A detector, and how it is run on the current folder."""

    name: str
    program: Path | None
    """None where it is not installed."""
    run: Callable[[Path], Reports]


@dataclass(frozen=True)
class Cost:
    """Of one command."""

    cpu: float
    wall: float


def detectors(folder: Path) -> list[Detector]:
    """Return all detectors; those of other projects are looked for in a folder of programs."""
    return [
        Detector("checklist's grep", _program("grep"), _grep),
        Detector("Bandit B614", _program("bandit", folder), _bandit),
        Detector("TorchFix TOR102", _program("torchfix", folder), _torchfix),
        Detector("tiergate", OURS, _tiergate),
    ]


def _program(name: str, folder: Path | None = None) -> Path | None:
    beside = folder / name if folder else None
    if beside is not None and beside.exists():
        return beside
    found = shutil.which(name)
    return Path(found) if found else None


def _output(command: list[str | Path], environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, **(environment or {})},
        check=False,
    )
    return done.stdout


def _grep(program: Path) -> Reports:
    """``grep -rn "torch\\.load(" . | grep -v weights_only``."""
    lines = _output([program, "-rnI", r"torch\.load(", "."]).splitlines()
    found = (re.match(r"\./(.+?):([0-9]+):", line) for line in lines if "weights_only" not in line)
    return Reports({(match[1], int(match[2])) for match in found if match})


def _bandit(program: Path) -> Reports:
    answer = json.loads(_output([program, "-q", "-r", "-f", "json", "-t", "B614", "."]))
    return Reports(
        {(os.path.normpath(r["filename"]), r["line_number"]) for r in answer["results"]},
        {os.path.normpath(error["filename"]) for error in answer["errors"]},
    )


def _torchfix(program: Path) -> Reports:
    output = _output([program, "--select=TOR102", "."])
    found = re.finditer(r"^(.+?):([0-9]+):[0-9]+: TOR102", output, re.MULTILINE)
    return Reports({(match[1], int(match[2])) for match in found})


def _tiergate(program: Path, path: str = ".", cache: str = "") -> Reports:
    """Run the gate; without a folder for its cache each time from the start."""
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder, "gate.yaml")
        spec.write_text(GATE.replace("PATH", path), encoding="utf-8")
        command: list[str | Path] = [program, "run", "--spec", spec, "--report", folder]
        command += [
            "--format",
            "json",
            "--isolation",
            "process",
            "--python",
            VENVS / "candidate" / "bin" / "python",
        ]
        environment = {
            "TIERGATE_CACHE": "1" if cache else "0",
            "XDG_CACHE_HOME": cache or folder,
        }
        (verdict,) = json.loads(_output(command, environment))["verdicts"]
    evidence = verdict["evidence"]
    return Reports(
        {(finding["path"], finding["line"]) for finding in evidence.get("findings", ())},
        {note.split(":", 1)[0] for note in evidence.get("notes", ())},
    )


def cost(run: Callable[[], object]) -> Cost:
    """Return what a command and its children take."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    run()
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(used, wall)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Return a Markdown table."""
    columns = list(head)
    return [
        f"| {' | '.join(columns)} |",
        "|" + "---|" * len(columns),
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def found_and_missed(all_detectors: list[Detector]) -> list[str]:
    """Run every detector on the corpus; return what is to be said of it, in Markdown."""
    cases = detection.cases()
    kinds = sorted({case.kind for case in cases})
    everything, misses, wrongs = [], [], []
    with tempfile.TemporaryDirectory(prefix="corpus-") as folder:
        detection.write(cases, Path(folder))
        subprocess.run(["git", "init", "-q", folder], check=True)
        os.chdir(folder)
        for detector in all_detectors:
            if detector.program is None:
                everything.append([detector.name, *["not installed"] * 2, *[""] * len(kinds)])
                continue
            reports = detector.run(detector.program)
            scores = {
                kind: detection.score(
                    [case for case in cases if case.kind == kind],
                    {place for place in reports.places if place[0].startswith(f"{kind}/")},
                    reports.unreadable,
                )
                for kind in kinds
            }
            whole = detection.score(cases, reports.places, reports.unreadable)
            everything.append(
                [detector.name, f"{whole.recall:.3f}", f"{whole.precision:.3f}"]
                + [f"{s.recall:.2f} / {s.precision:.2f}" for s in scores.values()]
            )
            misses.append([detector.name, *_named(whole.missed)])
            wrongs.append([detector.name, *_named(whole.wrong)])
            print(f"{detector.name}: recall {whole.recall:.3f}, precision {whole.precision:.3f}")
        os.chdir(ROOT)
    unsafe = sum(len(case.unsafe) for case in cases)
    safe = sum(not case.unsafe and not case.part for case in cases)
    return [
        f"{len(cases)} cases with {unsafe} unsafe places; {safe} of the cases are wholly safe.",
        "Of each group of cases: recall / precision.",
        "",
        *table(("detector", "recall", "precision", *kinds), everything),
        "",
        *table(("detector", "misses", "of these"), misses),
        "",
        *table(("detector", "flags wrongly", "of these"), wrongs),
    ]


def _named(places: Iterable[str]) -> tuple[str, str]:
    """Return how many places there are, and the first names of cases, one of each kind in turn."""
    by_kind: dict[str, list[str]] = {}
    count = 0
    for place in places:
        count += 1
        kind, case = place.split("/")[:2]
        if case not in by_kind.setdefault(kind, []):
            by_kind[kind].append(case)
    shown: list[str] = []
    while len(shown) < SHOWN and any(by_kind.values()):
        shown += [f"{kind}/{names.pop(0)}" for kind, names in by_kind.items() if names]
    more = ", …" if sum(map(len, by_kind.values())) or len(shown) > SHOWN else ""
    return str(count), ", ".join(f"`{name}`" for name in shown[:SHOWN]) + more


def costs(all_detectors: list[Detector], tree: Path, rounds: int, *, slow: bool) -> list[str]:
    """Measure every detector on a large tree, and the gate's own on this repository's library."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="tree-") as folder:
        count = _copy(tree, Path(folder, "tree"))
        subprocess.run(["git", "init", "-q", folder], check=True)
        subprocess.run(["git", "add", "-A"], cwd=folder, check=True)
        os.chdir(folder)
        for detector in all_detectors:
            if detector.name == "tiergate":
                continue
            if detector.program is None or (detector.name != "checklist's grep" and not slow):
                said = "not installed" if detector.program is None else "not measured (--slow)"
                rows.append([detector.name, said, ""])
                continue
            rows.append([detector.name, *_cost(1, lambda d=detector: d.run(d.program))])
        rows.append(["tiergate, cold", *_cost(rounds, lambda: _tiergate(OURS, "tree"))])
        with tempfile.TemporaryDirectory(prefix="cache-") as kept:
            _tiergate(OURS, "tree", kept)
            unchanged = _cost(rounds, lambda: _tiergate(OURS, "tree", kept))
        rows.append(["tiergate, nothing changed", *unchanged])
        os.chdir(ROOT)
    own = _cost(rounds, lambda: _tiergate(OURS, "src"))
    nothing = _cost(rounds, lambda: _output([OURS, "run", "--help"]))
    return [
        *table((f"{count} files of {tree.name}'s package", "CPU s", "wall s"), rows),
        "",
        *table(
            ("this repository's `src`", "CPU s", "wall s"),
            [["tiergate, cold", *own], ["of it, to start the command", *nothing]],
        ),
    ]


def _cost(rounds: int, run: Callable[[], object]) -> tuple[str, str]:
    every = [cost(run) for _ in range(rounds)]
    print(every, flush=True)
    return (
        f"{statistics.median(c.cpu for c in every):.2f}",
        f"{statistics.median(c.wall for c in every):.2f}",
    )


def _copy(tree: Path, to: Path) -> int:
    """Copy the Python files of a tree."""
    count = 0
    for path in tree.rglob("*.py"):
        target = to / path.relative_to(tree)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        count += 1
    return count


def _torch() -> Path:
    code = "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"
    return Path(_output([VENVS / "candidate" / "bin" / "python", "-c", code]).strip())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--detectors", type=Path, default=VENVS / "comparisons" / "bin", help="Bandit and TorchFix"
    )
    parser.add_argument("--tree", type=Path, help="a tree to be timed on (torch's own package)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--slow", action="store_true", help="time Bandit and TorchFix as well: an hour"
    )
    parser.add_argument("--write", action="store_true", help="put the tables into docs")
    parser.add_argument("--only", choices=PARTS, help="measure one part alone")
    options = parser.parse_args()
    every = detectors(options.detectors.absolute())
    for detector in every:
        if detector.program is None:
            print(
                f"{detector.name} is not installed and not measured: python "
                f"{ROOT / 'scripts' / 'environments.py'} comparisons"
            )
    for part in PARTS:
        if options.only in {None, part}:
            if part == "cases":
                lines = found_and_missed(every)
            else:
                tree = options.tree or _torch()
                lines = costs(every, tree, options.rounds, slow=options.slow)
            print("\n".join(lines))
            if options.write:
                _write(part, lines)


def _write(part: str, lines: list[str]) -> None:
    """Put what was measured into the page, between the marks of its part."""
    begin, end = f"<!-- {part}: begin -->", f"<!-- {part}: end -->"
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(begin)
    after = rest.partition(end)[2]
    text = "\n".join((f"{before}{begin}", "", *lines, "", f"{end}{after}"))
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
