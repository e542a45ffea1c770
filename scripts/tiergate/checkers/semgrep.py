"""``semgrep``: the tool's own rules find nothing, in files that were all really analysed.

Semgrep drops files silently in many ways. Here the repository's own inventory says which files
there are; every one of them must compile, must be scanned and must give no error, and a canary
with known findings proves in the same run that the rules are alive. Suppression comments and
ignore files count for nothing.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from tiergate import processes
from tiergate.checkers import Context, Observation
from tiergate.expectation import Outcomes
from tiergate.fields import RepositoryPath
from tiergate.suggest import did_you_mean
from tiergate.verdict import Finding

RULES = Path(__file__).parent.parent / "rules"

_PYTHON_SUFFIXES = frozenset({".py", ".pyi", ".pyw"})
_UNREADABLE_SUFFIXES = frozenset({".ipynb", ".pyc", ".pyx"})
_OUTPUT_LIMIT = 256 * 1024 * 1024
_FILE_TIMEOUT = 30
_SHOWN = 20
_ANNOTATION = re.compile(r"#\s*ruleid:\s*(\S+)")


class With(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters of ``semgrep``."""

    rules: Annotated[
        list[str],
        Meta(min_length=1, description="Rules of the tool.", examples=[["unsafe-torch-load"]]),
    ]
    paths: Annotated[
        list[RepositoryPath], Meta(min_length=1, description="Files or folders to scan.")
    ]
    engine: Annotated[
        Literal["fast", "default"],
        Meta(description="`fast` starts semgrep's core directly, where the installation has one."),
    ] = "fast"


class _Position(msgspec.Struct):
    line: int
    col: int


class _Extra(msgspec.Struct):
    message: str


class _Match(msgspec.Struct):
    check_id: str
    path: str
    start: _Position
    extra: _Extra

    @property
    def rule(self) -> str:
        """The rule's id, without the folder names that semgrep puts in front of it."""
        return self.check_id.rsplit(".", 1)[-1]


class _Paths(msgspec.Struct):
    scanned: list[str]


class _Results(msgspec.Struct):
    version: str
    results: list[_Match]
    errors: list[Any]
    paths: _Paths


def outcomes(parameters: With) -> Outcomes:
    """Findings; how many files were scanned may be expected as well."""
    del parameters
    return Outcomes(strict=("findings",), free=("scanned",), default={"findings": 0})


def problems(parameters: With) -> Iterable[tuple[tuple[str | int, ...], str]]:
    """Refuse rules that the tool does not have."""
    for index, rule in enumerate(parameters.rules):
        if rule not in known_rules():
            yield ("rules", index), f"unknown rule {rule[:80]!r}{did_you_mean(rule, known_rules())}"


@cache
def known_rules() -> frozenset[str]:
    """Return the ids of the tool's rules."""
    return frozenset(path.stem for path in RULES.glob("*.yaml"))


def observe(parameters: With, context: Context) -> Observation:
    """Take the inventory, compile every file, scan, and compare what was scanned."""
    files, unreadable = _inventory(parameters.paths, context)
    if not files and not unreadable:
        return Observation(error=f"no Python file in {', '.join(parameters.paths)}")
    unreadable += _syntax_errors(files, context)
    if unreadable:
        return _not_evaluated("files that could not be analysed", unreadable)
    engine = _fast_engine() if parameters.engine == "fast" else None
    notes = [] if engine or parameters.engine == "default" else ["the fast engine is not installed"]
    done = _scan(parameters, files, engine, context)
    shown = done.stderr.decode(errors="replace")[-4000:]
    if done.cancelled:
        return Observation(error=f"cancelled: {context.candidate.cancellation.reason}")
    if done.timed_out:
        return Observation(error=f"timed out after {context.criterion.timeout:g} s", output=shown)
    try:
        results = msgspec.json.decode(done.stdout, type=_Results)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Observation(
            error=f"semgrep ({done.ending}) wrote no readable results: {error}", output=shown
        )
    return _read(parameters, files, results, notes, shown, context.candidate.repository.root)


def reproduce(parameters: With, context: Context) -> list[str]:
    """Return the plain semgrep command, with the same rules and nothing ignored."""
    del context
    configs = [f"--config={RULES / rule}.yaml" for rule in parameters.rules]
    flags = ["--metrics=off", "--disable-version-check", "--disable-nosem", "--no-git-ignore"]
    flags += ["--x-ignore-semgrepignore-files", "--strict", "--error"]
    command = [str(_default_engine()), "scan", *configs, *flags, "--", *parameters.paths]
    return [shlex.join(command)]


def _inventory(paths: list[str], context: Context) -> tuple[list[str], list[str]]:
    """Return the files to scan, and why others of the repository cannot be."""
    repository = context.candidate.repository
    files, unreadable = (
        [],
        [f"{path}: does not exist" for path in paths if not (repository.root / path).exists()],
    )
    for name in repository.files_under(paths):
        path = repository.root / name
        if not name.isprintable():
            unreadable.append(f"{name!a}: such a name cannot be passed on safely")
        elif repository.leaves(name):
            unreadable.append(f"{name}: a symbolic link that leaves the repository")
        elif path.is_dir():
            unreadable.append(f"{name}: a nested repository, a submodule or a linked folder")
        elif path.suffix.lower() in _UNREADABLE_SUFFIXES:
            unreadable.append(f"{name}: {path.suffix} files cannot be scanned")
        elif path.suffix.lower() in _PYTHON_SUFFIXES or (not path.suffix and _has_shebang(path)):
            files.append(name)
    return files, unreadable


def _has_shebang(path: Path) -> bool:
    if not path.exists():  # a symbolic link to nothing
        return False
    with path.open("rb") as stream:
        first = stream.readline(200)
    return first.startswith(b"#!") and b"python" in first


def _syntax_errors(files: list[str], context: Context) -> list[str]:
    """Return the files that the candidate's own interpreter does not compile."""
    result = context.candidate.run_job(
        "syntax", context.device, context.criterion.timeout, {"files": files}
    )
    if result.problem:
        return [f"{', '.join(files[:3])}, …: compiling {result.problem}"]
    return [f"{r['path']}:{r['line']}: {r['message']}" for r in result.of("unreadable")]


def _scan(
    parameters: With, files: list[str], engine: Path | None, context: Context
) -> processes.Completed:
    start: list[str | Path] = (
        ["osemgrep", "scan", "--experimental"] if engine else [_default_engine(), "scan"]
    )
    configs = [part for rule in parameters.rules for part in ("--config", RULES / f"{rule}.yaml")]
    flags = [
        "--json",
        "--metrics=off",
        "--disable-version-check",
        "--disable-nosem",
        "--no-git-ignore",
        "--x-ignore-semgrepignore-files",
        "--scan-unknown-extensions",
        "--strict",
        "--max-target-bytes=0",
        f"--timeout={_FILE_TIMEOUT}",
        "-j",
        "1",
    ]
    canaries = [RULES / f"{rule}.py" for rule in parameters.rules]
    candidate = context.candidate
    with tempfile.TemporaryDirectory(prefix="tiergate-") as home:
        # A home of its own: a person's semgrep settings must not change a verdict.
        environment = {"PATH": os.environ.get("PATH", ""), "HOME": home, "LC_ALL": "C.UTF-8"}
        return processes.run(
            [*start, *configs, *flags, "--", *canaries, *files],
            executable=engine,
            cwd=candidate.repository.root,
            env=environment,
            timeout=context.criterion.timeout,
            cancellation=candidate.cancellation,
            output_limit=_OUTPUT_LIMIT,
        )


@cache
def _fast_engine() -> Path | None:
    spec = importlib.util.find_spec("semgrep")
    if spec is None or spec.origin is None:
        return None
    core = Path(spec.origin).parent / "bin" / "semgrep-core"
    return core if os.access(core, os.X_OK) else None


def _default_engine() -> Path:
    return Path(sys.executable).parent / "semgrep"


def _read(
    parameters: With,
    files: list[str],
    results: _Results,
    notes: list[str],
    shown: str,
    root: Path,
) -> Observation:
    if results.errors:
        return _not_evaluated("semgrep reported errors", [_error_text(e) for e in results.errors])
    scanned = {os.path.normpath(path) for path in results.paths.scanned}
    if skipped := [name for name in files if os.path.normpath(name) not in scanned]:
        return _not_evaluated("files that semgrep did not scan", skipped)
    canaries = {str(RULES / f"{rule}.py"): rule for rule in parameters.rules}
    dead = [
        rule
        for path, rule in canaries.items()
        if _annotated_lines(Path(path), rule)
        != {m.start.line for m in results.results if m.path == path and m.rule == rule}
    ]
    if dead:
        return _not_evaluated("rules that do not find their own examples", dead, shown)
    findings = [m for m in results.results if m.path not in canaries]
    return Observation(
        counts={"findings": len(findings), "scanned": len(files)},
        findings=tuple(
            Finding(
                rule=match.rule,
                path=match.path,
                line=match.start.line,
                column=match.start.col,
                message=match.extra.message,
                code=_line(root / match.path, match.start.line),
            )
            for match in findings
        ),
        notes=(*notes, f"{len(files)} files scanned by semgrep {results.version}"),
    )


def _line(path: Path, number: int) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    return lines[number - 1].strip()[:200] if number <= len(lines) else ""


def _annotated_lines(path: Path, rule: str) -> set[int]:
    """Return the lines of a canary that the rule must find: each is below its annotation."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return {
        number + 1
        for number, line in enumerate(lines, start=1)
        if (match := _ANNOTATION.search(line)) and match[1] == rule
    }


def _error_text(error: Any) -> str:
    if not isinstance(error, dict):
        return str(error)[:300]
    where = error.get("path") or ""
    what = error.get("message") or error.get("long_msg") or error.get("type") or "unknown error"
    return f"{where}: {str(what)[:300]}" if where else str(what)[:300]


def _not_evaluated(what: str, items: list[str], output: str = "") -> Observation:
    more = f", and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return Observation(
        error=f"{what}: {'; '.join(items[:_SHOWN])}{more}", notes=tuple(items), output=output
    )
