"""Which cells of a leg are answered from the cache, why not, and what is kept of a run."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tiergate import __version__, cache_facts, checkers, yaml_document
from tiergate.cache import Answer, Cache, Environment
from tiergate.cache_facts import Fact, Facts, Kind
from tiergate.candidate import Candidate, Reads
from tiergate.environment import in_ci
from tiergate.reproduce import cell_command
from tiergate.verdict import Cached, Verdict
from tiergate.yaml_document import Node

if TYPE_CHECKING:
    from tiergate.fields import Device
    from tiergate.plan import Cell
    from tiergate.spec import Criterion

_PROBED = frozenset({"imports", "pytest", "collection"})
"""Kinds whose inputs the probe tells."""

_PROSE = frozenset({".md", ".rst"})
_PYTEST_FILES = (
    "conftest.py",
    "__init__.py",
    "pytest.toml",
    ".pytest.toml",
    "pytest.ini",
    ".pytest.ini",
    "pyproject.toml",
    "tox.ini",
    "setup.cfg",
    "setup.py",
)
"""What pytest asks for in the folders above the tests, without listing them."""
_TIME_ZONE = "/etc/localtime"
"""What the C library reads for the local time, without an event."""
_SHOWN = 8
_INTERPRETER = "the interpreter or its installed distributions"
_NEVER = "no run of it that passed was kept"


def place(environment: Mapping[str, str], fallback: Path, *, asked: bool | None) -> Path | None:
    """Return where verdicts are kept, or None where they are not to be.

    Args:
        environment: the caller's variables.
        fallback: the folder to take where the user has no cache.
        asked: ``--cache`` or ``--no-cache``; None where neither was given.
    """
    switch = environment.get("TIERGATE_CACHE", "")
    wanted = switch != "0" and (switch == "1" or not in_ci(environment))
    if not (wanted if asked is None else asked):
        return None
    home = environment.get("HOME", "")
    base = environment.get("XDG_CACHE_HOME", "") or (f"{home}/.cache" if home else "")
    folder = Path(base, "tiergate") if Path(base).is_absolute() else fallback
    return folder / "verdicts.sqlite"


def document(cache: Cache | None, data: bytes) -> Node:
    """Return the tree of a YAML file's nodes as ``yaml_document.parse`` does, once for a content.

    Raises:
        YamlError: as it does.
    """
    if cache is None:
        return yaml_document.parse(data)
    key = cache_facts.digest(data, __version__, cache_facts.tool())
    return cache.document(key, lambda: yaml_document.parse(data), Node)


class Session:
    """One run's dealings with the cache.

    Args:
        cache: what earlier runs left.
        candidate: what is judged.
        device: on which device.
    """

    def __init__(self, cache: Cache, candidate: Candidate, device: Device) -> None:
        self.cache = cache
        self.candidate = candidate
        self.device = device
        self.started_ns = time.time_ns()
        self.environment: Environment | None = None
        """What the interpreter said of itself, where it still is the same."""
        self.reads: dict[str, Reads] = {}
        """What the evaluated cells read, by cell."""
        self.missed: dict[str, list[str]] = {}
        """Why the cells that were asked for have no answer."""
        self._facts = Facts(self.candidate.repository.root)
        self._root = str(self.candidate.repository.root)
        # The run itself makes its own folder there, which changes the times.
        self._before = self._facts.fact(self._root, "folder").content
        self._driver = cache_facts.cuda() if self.device == "cuda" else ""
        self._signature = ""
        self._used: list[int] = []
        self._common: dict[str, str] = {}
        known = self.cache.environment(str(self.candidate.python))
        if known is not None:
            self._signature = self._sign(known.folders)
            same = known.signature == self._signature
            if same and (self.device == "cpu" or (known.proof and known.device == self._driver)):
                self.environment = known

    def answers(self, cells: Iterable[Cell], candidate: Candidate) -> dict[str, Verdict]:
        """Return the verdicts of the cells whose inputs are what they were when they passed."""
        found = {}
        for cell in cells:
            verdict = self._answer(cell, candidate)
            if verdict is not None:
                found[cell.name] = verdict
        self.cache.touch(self._used)
        return found

    def watched(self, cell: Cell, candidate: Candidate) -> Candidate:
        """Return the candidate for one cell's evaluation, with what tells its inputs."""
        if _refusal(cell.criterion):
            return candidate
        self.reads[cell.name] = Reads()
        return msgspec.structs.replace(candidate, reads=self.reads[cell.name])

    def learn(self, values: dict[str, str], folders: list[str], proof: dict[str, str]) -> None:
        """Keep what the interpreter and the device said."""
        signature = self._sign(folders)
        self._signature = signature
        self._common.clear()
        self.environment = Environment(values, folders, signature, self._driver, proof)
        self.cache.put_environment(str(self.candidate.python), self.environment)

    def keep(
        self, cells: Iterable[Cell], candidate: Candidate, verdicts: list[Verdict], tree: str
    ) -> None:
        """Keep what passed of a run during which the repository did not change."""
        self._facts = Facts(self.candidate.repository.root)  # not as they were before the run
        by_name = {verdict.cell: verdict for verdict in verdicts}
        moment = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(self.started_ns // 10**9))
        for cell in cells:
            verdict = by_name.get(cell.name)
            if verdict is None or verdict.cached is not None:
                continue
            reasons = self._keep(cell, candidate, verdict, moment, tree)
            self.cache.tell(self._root, cell.name, "run", moment, self.missed.get(cell.name, []))
            self.cache.tell(self._root, cell.name, "kept", moment, reasons)

    def why(self, cell: Cell, candidate: Candidate) -> tuple[Verdict | None, list[str]]:
        """Return a cell's cached verdict, or the reasons why it would be evaluated."""
        verdict = self._answer(cell, candidate)
        return verdict, self.missed.get(cell.name, [])

    def _sign(self, folders: list[str]) -> str:
        return cache_facts.environment(self.candidate.python, folders)

    def _answer(self, cell: Cell, candidate: Candidate) -> Verdict | None:
        reasons = self.missed.setdefault(cell.name, [])
        reasons.clear()
        if refused := _refusal(cell.criterion):
            reasons.append(refused)
            return None
        if self.device == "cuda" and not self._driver:
            reasons.append("the device's driver cannot be told: /proc/driver/nvidia is not there")
            return None
        if self.environment is None:
            reasons.append(_INTERPRETER if self._signature else _NEVER)
            return None
        parts = self._parts(cell, candidate)
        question = _question(parts)
        for number, answer in self.cache.answers(self._root, cell.name, question):
            compared = self._facts.compared
            changed = self._changed(answer, candidate)
            if not changed:
                reasons.clear()
                self._used.append(number)
                if self._facts.compared > compared:
                    self._refresh(number, answer)
                return msgspec.structs.replace(
                    answer.verdict, cached=Cached(at=answer.at, tree=answer.tree)
                )
            if not reasons or len(changed) < len(reasons):
                reasons[:] = changed
        if not reasons:
            reasons += self._different(cell, parts)
        return None

    def _different(self, cell: Cell, parts: dict[str, str]) -> list[str]:
        """Say in what the question differs from those that have an answer."""
        differences = [
            [
                name
                for name in {**answer.parts, **parts}
                if answer.parts.get(name) != parts.get(name)
            ]
            for _, answer in self.cache.answers(self._root, cell.name)
        ]
        return min(differences, key=len, default=[_NEVER])

    def _changed(self, answer: Answer, candidate: Candidate) -> list[str]:
        """Return which files are not as they were, the first ones."""
        files = candidate.repository.files
        changed = []
        if files != answer.inventory:
            before, now = set(answer.inventory), set(files)
            changed += [f"new file: {name}" for name in sorted(now - before)[:_SHOWN]]
            changed += [f"file that is gone: {name}" for name in sorted(before - now)[:_SHOWN]]
        for kind, facts in _kinds(answer):
            what = "folder" if kind == "folder" else "file"
            for name, known in facts.items():
                if not self._facts.holds(name, known, kind):
                    changed.append(f"changed {what}: {name or '.'}")
                    if len(changed) >= _SHOWN:
                        return changed
        return changed

    def _refresh(self, number: int, answer: Answer) -> None:
        """Write the new times of files that were touched and are the same."""
        files, folders, asked = (
            {name: self._facts.current(name, fact, kind) for name, fact in facts.items()}
            for kind, facts in _kinds(answer)
        )
        new = msgspec.structs.replace(answer, files=files, folders=folders, asked=asked)
        if new != answer:
            self.cache.replace(number, new)

    @property
    def circumstances(self) -> str:
        """A digest of what all cells depend on; empty where a part of it is not known."""
        if self.environment is None or (self.device == "cuda" and not self._driver):
            return ""
        return _question(self._shared())

    def _shared(self) -> dict[str, str]:
        if not self._common:
            self._common = {
                _INTERPRETER: self._signature,
                "tiergate or its environment": f"{__version__} {cache_facts.tool()}",
                "the machine": cache_facts.machine(),
                "the device or its driver": self._driver,
            }
        return self._common

    def _parts(self, cell: Cell, candidate: Candidate) -> dict[str, str]:
        """Return what a verdict depends on besides files, by name."""
        criterion = cell.criterion
        return {
            **self._shared(),
            "the criterion": cache_facts.digest(*_texts(criterion)),
            "pythonpath": cache_facts.digest(*candidate.spec.pythonpath),
            "how to reproduce it": cell_command(criterion.id, cell.device, candidate),
            **cache_facts.variables(candidate.environment(cell.device)),
        }

    def _keep(
        self, cell: Cell, candidate: Candidate, verdict: Verdict, moment: str, tree: str
    ) -> list[str]:
        """Keep a verdict, or return why not."""
        if refused := _refusal(cell.criterion):
            return [refused]
        if verdict.status != "pass":
            return [f"only a pass is kept, and this is: {verdict.status}"]
        if verdict.evidence.observed.get("flaky") or verdict.evidence.observed.get("rerun"):
            return ["tests passed only when they were run again"]
        if self.environment is None or (self.device == "cuda" and not self._driver):
            return ["the interpreter or the device could not be told"]
        if self._sign(self.environment.folders) != self._signature:
            return ["the interpreter's environment changed meanwhile"]
        reads = self.reads.get(cell.name, Reads())
        if reads.reasons:
            return list(reads.reasons)
        inputs = self._inputs(cell.criterion, candidate, reads)
        for kind, among in inputs.items():
            for name in among:
                changed = self._facts.changed_since(name, self.started_ns, kind)
                same = kind == "folder" and name == self._root and self._is_top_the_same()
                if changed and not same:
                    return [f"{name or '.'} changed during the run, or just before it"]
        answer = Answer(
            verdict=verdict,
            at=moment,
            tree=tree,
            parts=self._parts(cell, candidate),
            inventory=candidate.repository.files,
            files={name: self._facts.fact(name, "file") for name in inputs["file"]},
            folders={name: self._facts.fact(name, "folder") for name in inputs["folder"]},
            asked={name: self._facts.fact(name, "asked") for name in inputs["asked"]},
        )
        try:
            self.cache.put(self._root, cell.name, _question(answer.parts), answer)
        except UnicodeEncodeError:
            return ["a file's name is no text"]
        return []

    def _is_top_the_same(self) -> bool:
        return self._facts.fact(self._root, "folder").content == self._before

    def _inputs(
        self, criterion: Criterion, candidate: Candidate, reads: Reads
    ) -> dict[Kind, list[str]]:
        """Return the paths that a cell's verdict depends on, by what of them counts."""
        repository = candidate.repository
        if criterion.uses in checkers.STATIC:
            paths = msgspec.to_builtins(criterion.parameters)["paths"]
            below = set(repository.files_under(paths))
            names = {
                name
                for name in repository.files
                if name in below or (criterion.uses == "semgrep" and _suffix(name) not in _PROSE)
            }
            # A path with no file of the repository in it must be there all the same.
            asked = {os.path.normpath(path) for path in paths} - names
            return {"file": sorted(names), "folder": [], "asked": sorted(asked)}
        names = {self._facts.name(path) for path in reads.files} | {_TIME_ZONE}
        names |= {name for name in repository.files if not cache_facts.is_text(name)}
        if criterion.uses != "imports":
            above = {str(folder) for folder in (repository.root, *repository.root.parents)}
            paths = (os.path.join(self._root, name) for name in (*names, *reads.folders))  # noqa: PTH118
            inside = {os.path.dirname(path) for path in paths}  # noqa: PTH120
            above |= {folder for folder in inside if folder.startswith(self._root + os.sep)}
            names |= {
                self._facts.name(os.path.join(folder, name))  # noqa: PTH118
                for folder in above
                for name in _PYTEST_FILES
            }
        folders = {self._facts.name(path) for path in reads.folders}
        opened = {self._facts.name(path) for path in reads.opened}
        names |= {name for name in opened if cache_facts.is_text(name)}
        # Told by size and times: a model's weights would take long to read.
        asked = {self._facts.name(path) for path in reads.asked} | opened
        asked -= names
        return {"file": sorted(names), "folder": sorted(folders), "asked": sorted(asked)}


def _kinds(answer: Answer) -> tuple[tuple[Kind, dict[str, Fact]], ...]:
    return ("file", answer.files), ("folder", answer.folders), ("asked", answer.asked)


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - thousands of them


def _refusal(criterion: Criterion) -> str:
    """Say why a criterion's verdicts are never kept; empty where they are."""
    if criterion.uses not in _PROBED | checkers.STATIC:
        return f"never kept: {criterion.uses} starts programs, whose inputs nobody tells"
    if criterion.needs_base:
        return "never kept: it is compared with the base branch"
    return ""


def _texts(criterion: Criterion) -> list[str]:
    """Return all of a criterion that its verdict shows or depends on."""
    return [
        criterion.id,
        criterion.uses,
        msgspec.json.encode(criterion.parameters).decode(),
        *(f"{name} {bound}" for name, bound in sorted(criterion.expect.items())),
        f"{criterion.timeout} {criterion.retries} {criterion.flaky}",
        msgspec.json.encode(criterion.remedy).decode(),
    ]


def _question(parts: Mapping[str, str]) -> str:
    return cache_facts.digest(*(f"{name}\0{value}" for name, value in sorted(parts.items())))
