"""Reads the labelled cases of benchmarks/detection_corpus and scores a detector's reports."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

CORPUS = Path(__file__).resolve().parents[2] / "benchmarks" / "detection_corpus"

_MARK = re.compile(r"[ \t]*#! (unsafe|part)[ \t]*$")


@dataclass
class Case:
    """A few files, with the lines that must, or may, be reported."""

    kind: str
    name: str
    files: dict[str, bytes] = field(default_factory=dict)
    unsafe: set[tuple[str, int]] = field(default_factory=set)
    part: set[tuple[str, int]] = field(default_factory=set)

    @property
    def folder(self) -> str:
        """Where it is put."""
        return f"{self.kind}/{self.name}"

    @property
    def whole_file(self) -> bool:
        """Whether to name the file as unreadable is right as well."""
        return self.kind == "files"


@dataclass(frozen=True)
class Score:
    """How a detector did."""

    found: int
    missed: tuple[str, ...]
    wrong: tuple[str, ...]

    @property
    def recall(self) -> float:
        return self.found / (self.found + len(self.missed))

    @property
    def precision(self) -> float:
        return self.found / (self.found + len(self.wrong)) if self.found else 0.0


def cases() -> list[Case]:
    """Read all cases.

    Raises:
        ValueError: a name is used twice.
    """
    found: list[Case] = []
    for path in sorted(CORPUS.glob("*.cases")):
        for part in re.split(r"(?m)^## ", path.read_text(encoding="utf-8"))[1:]:
            name, _, text = part.partition("\n")
            found.append(_case(path.stem, name.strip(), text))
    folders = [case.folder for case in found]
    if twice := {folder for folder in folders if folders.count(folder) > 1}:
        raise ValueError(f"cases of the same name: {sorted(twice)}")
    return found


def _case(kind: str, name: str, text: str) -> Case:
    case = Case(kind, name)
    if not text.startswith(">> "):
        text = f">> case.py\n{text}"
    for part in re.split(r"(?m)^>> ", text)[1:]:
        header, _, body = part.partition("\n")
        file, _, encoding = header.strip().partition(" ")
        lines = body.rstrip("\n").split("\n")
        for number, line in enumerate(lines, start=1):
            if match := _MARK.search(line):
                getattr(case, match[1]).add((f"{case.folder}/{file}", number))
        clean = "\n".join(_MARK.sub("", line) for line in lines) + "\n"
        case.files[file] = _encoded(clean, encoding)
    return case


def _encoded(text: str, encoding: str) -> bytes:
    if encoding == "crlf":
        return text.replace("\n", "\r\n").encode()
    if encoding == "null":
        return text.encode() + b"\0\n"
    return text.encode(encoding or "utf-8")


def write(everything: Iterable[Case], root: Path) -> None:
    """Put the files of the cases below a folder."""
    for case in everything:
        for name, content in case.files.items():
            path = root / case.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def score(
    everything: Iterable[Case],
    reported: Iterable[tuple[str, int]],
    unreadable: Iterable[str] = (),
) -> Score:
    """Compare what was reported with the labels.

    Args:
        everything: the cases.
        reported: path and line of each report.
        unreadable: the files that the detector said it could not read.
    """
    reports, named = set(reported), set(unreadable)
    files = {path for path, _ in reports}
    found, missed = 0, []
    allowed: set[tuple[str, int]] = set()
    forgiven: set[str] = set()
    for case in everything:
        allowed |= case.unsafe | case.part
        for path, line in sorted(case.unsafe):
            if case.whole_file:
                forgiven.add(path)
                hit = path in files or path in named
            else:
                hit = (path, line) in reports or bool(case.part & reports)
            found += hit
            if not hit:
                missed.append(f"{path}:{line}")
    wrong = [f"{p}:{n}" for p, n in sorted(reports - allowed) if p not in forgiven]
    return Score(found, tuple(missed), tuple(wrong))
