"""The checkpoints criterion against picklescan, on model files of every form, none of them loaded.

Both are called as libraries on files in a folder, by their paths. Writes the table of
docs/checkpoints-criterion.md with --write. Runs in the judge's environment.
"""

from __future__ import annotations

import argparse
import datetime as dt
import logging
import os
import re
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import metadata, util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "checkpoints-criterion.md"
MARKS = ("<!-- made by scripts/bench scanners --write -->", "<!-- end -->")

Scan = Callable[[Path], str]


def in_judges_environment() -> None:
    """Start again with the judge's interpreter, which has tiergate and picklescan."""
    if util.find_spec("picklescan") is None:
        venvs = Path(os.environ.get("TIERGATE_VENVS", ROOT / ".venvs"))
        python = str(venvs / "judge" / "bin" / "python")
        os.execv(python, [python, *sys.argv])


def ours(path: Path) -> str:
    from tiergate.models import policy  # noqa: PLC0415 - in the judge's environment alone

    rules = {breach.rule for breach in policy.examine(path, path.name, "weights-only").breaches}
    return "C" if not rules else "E" if rules == {"unreadable-model-file"} else "D"


def picklescan(strict: bool) -> Scan:
    from picklescan import scanner  # noqa: PLC0415 - as above

    logging.getLogger("picklescan").setLevel(logging.CRITICAL)

    def scan(path: Path) -> str:
        try:
            result = scanner.scan_file_path(str(path), strict=strict)
        except Exception:  # noqa: BLE001 - whatever it raises, it did not finish
            return "E"
        if result.issues_count:
            return "D"
        return "E" if result.scan_err else "C"

    return scan


def table(scans: dict[str, Scan]) -> Iterator[str]:
    from model_files import corpus  # noqa: PLC0415 - found only when the path is set

    with tempfile.TemporaryDirectory(prefix="model-files-") as folder:
        groups: dict[str, dict[str, Counter[str]]] = {}
        kinds: dict[str, str] = {}
        seconds: Counter[str] = Counter()
        for number, file in enumerate(corpus()):
            path = Path(folder, str(number), file.name)
            path.parent.mkdir()
            path.write_bytes(file.content)
            kinds[file.group] = file.kind
            for name, scan in scans.items():
                started = time.process_time()
                outcome = scan(path)
                seconds[name] += time.process_time() - started
                groups.setdefault(file.group, {}).setdefault(name, Counter())[outcome] += 1
    yield f"| files | n | {' | '.join(scans)} |"
    yield f"|---|---|{'---|' * len(scans)}"
    for group, seen in groups.items():
        wrong = "DE" if kinds[group] == "harmless" else "C"
        cells = [_cell(seen[name], wrong) for name in scans]
        yield f"| {group} | {sum(seen[next(iter(scans))].values())} | {' | '.join(cells)} |"
    yield f"| CPU s for all | | {' | '.join(f'{seconds[name]:.2f}' for name in scans)} |"


def _cell(counts: Counter[str], wrong: str) -> str:
    parts = [f"{outcome}{counts[outcome]}" for outcome in "DEC" if counts[outcome]]
    return " ".join(f"**{part}**" if part[0] in wrong else part for part in parts)


def large(scans: dict[str, Scan], megabytes: int, many: int) -> Iterator[str]:
    """Time one large file and many small ones."""
    from model_files import weights, zipped  # noqa: PLC0415 - as above

    yield f"| CPU s | {' | '.join(scans)} |"
    yield f"|---|{'---|' * len(scans)}"
    with tempfile.TemporaryDirectory(prefix="model-files-") as folder:
        path = Path(folder, "large.pt")
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", weights())
            for number in range(megabytes // 50):
                archive.writestr(f"archive/data/{number}", os.urandom(1 << 20) * 50)
        times = (f"{_seconds(scan, [path]):.3f}" for scan in scans.values())
        yield f"| one file of {megabytes} MB | {' | '.join(times)} |"
        path.unlink()
        paths = [Path(folder, f"{number}.pt") for number in range(many)]
        for path in paths:
            path.write_bytes(zipped(weights()))
        times = (f"{_seconds(scan, paths):.2f}" for scan in scans.values())
        yield f"| {many} files of 1 kB | {' | '.join(times)} |"


def _seconds(scan: Scan, paths: list[Path]) -> float:
    started = time.process_time()
    for path in paths:
        scan(path)
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench scanners", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.relative_to(ROOT)}")
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--many", type=int, default=2000)
    options = parser.parse_args()
    in_judges_environment()
    sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests" / "gate")]
    scans = {
        "tiergate": ours,
        "picklescan": picklescan(strict=False),
        "picklescan strict": picklescan(strict=True),
    }
    ours(Path(__file__))  # imports count for nobody
    today = dt.datetime.now(tz=dt.timezone.utc).date()
    lines = [
        f"{today}, picklescan {metadata.version('picklescan')}, Python {sys.version.split()[0]}.",
        "",
        *table(scans),
        "",
        *large(scans, options.megabytes, options.many),
    ]
    text = "\n".join(lines)
    print(text)
    if options.write:
        page = PAGE.read_text(encoding="utf-8")
        pattern = re.compile(f"{re.escape(MARKS[0])}.*{re.escape(MARKS[1])}", re.DOTALL)
        made = f"{MARKS[0]}\n\n{text}\n\n{MARKS[1]}"
        PAGE.write_text(pattern.sub(lambda _: made, page), encoding="utf-8")


if __name__ == "__main__":
    main()
