"""``semgrep``: the tool's own rules find nothing, in files that were all really analysed.

Semgrep drops files silently in many ways. Here the repository's own inventory says which files
there are; every one of them must compile, must be scanned and must give no error, and a canary
with known findings proves in the same run that the rules are alive. Suppression comments and
ignore files count for nothing.

What semgrep cannot express of ``unsafe-torch-load``, such as the flow through names, is decided by
a resolver over Python's own syntax tree (``tiergate.loads``). It runs in the judge, where nothing
of the candidate's can change its answer; a file that the judge's Python cannot parse is an error.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from tiergate import findings_cache, processes, python_files
from tiergate.checkers import Context, Observation
from tiergate.expectation import Outcomes
from tiergate.fields import RepositoryPath
from tiergate.findings_cache import FindingsCache
from tiergate.python_files import Inventory, PythonFile
from tiergate.reproduce import shown_path
from tiergate.suggest import did_you_mean
from tiergate.verdict import Finding

if TYPE_CHECKING:
    from tiergate.loads.scan import Place, Scan

RULES = Path(__file__).parent.parent / "rules"
RESOLVED = "unsafe-torch-load"
"""The rule that the resolver decides together with semgrep."""
GROUPS = frozenset({"unsafe-deserialization"})
"""Names that stand for every rule that begins with them."""

_OUTPUT_LIMIT = 256 * 1024 * 1024
_FILE_TIMEOUT = 30
_SHOWN = 20
_ANNOTATION = re.compile(r"#\s*ruleid:\s*(\S+)")
_MENTIONS = re.compile(r"^ +mentions: '(.*)'$", re.MULTILINE)


class With(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters of ``semgrep``."""

    rules: Annotated[
        list[str],
        Meta(
            min_length=1,
            description="Rules of the tool; `unsafe-deserialization` stands for all that begin so.",
            examples=[["unsafe-torch-load"]],
        ),
    ]
    paths: Annotated[
        list[RepositoryPath],
        Meta(min_length=1, description="Files or folders to scan.", examples=[["src"]]),
    ]
    engine: Annotated[
        Literal["fast", "default"],
        Meta(
            description="`fast` starts semgrep's core directly, where the installation has one.",
            examples=["default"],
        ),
    ] = "fast"
    policy: Annotated[
        Literal["explicit", "floor-2.6"],
        Meta(
            description="`explicit`: weights_only=True at every torch.load; `floor-2.6`: it may be "
            "left out where the project declares torch>=2.6.",
            examples=["floor-2.6"],
        ),
    ] = "explicit"


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


class _Found(msgspec.Struct):
    """What one of the two saw, before both are put together."""

    rule: str
    path: str
    line: int
    """In the Python that was read: of a notebook, in what was extracted."""
    column: int
    message: str
    by: str


@dataclass
class _Semgrep:
    """What came of running semgrep."""

    found: list[_Found] = field(default_factory=list)
    version: str = ""
    problem: str = ""
    details: list[str] = field(default_factory=list)
    output: str = ""


def outcomes(parameters: With) -> Outcomes:
    """Findings; how many files were scanned may be expected as well."""
    del parameters
    return Outcomes(strict=("findings",), free=("scanned",), default={"findings": 0})


def problems(parameters: With) -> Iterable[tuple[tuple[str | int, ...], str]]:
    """Refuse rules that the tool does not have."""
    for index, rule in enumerate(parameters.rules):
        if not chosen_rules([rule]):
            yield (
                ("rules", index),
                f"unknown rule {rule[:80]!r}{did_you_mean(rule, known_rules() | GROUPS)}",
            )
    if parameters.policy != "explicit" and RESOLVED not in parameters.rules:
        yield ("policy",), f"{parameters.policy!r} speaks of the rule {RESOLVED}, which is not here"


@cache
def known_rules() -> frozenset[str]:
    """Return the ids of the tool's rules."""
    return frozenset(path.stem for path in RULES.glob("*.yaml"))


def chosen_rules(names: Sequence[str]) -> list[str]:
    """Return the rules that names stand for: a rule, or all of a group."""
    chosen = [
        rule
        for name in names
        for rule in sorted(known_rules())
        if rule == name or (name in GROUPS and rule.startswith(f"{name}-"))
    ]
    return list(dict.fromkeys(chosen))


def observe(parameters: With, context: Context) -> Observation:
    """Take the inventory, compile every file, scan, and compare what was scanned."""
    repository = context.candidate.repository
    inventory = python_files.inventory(parameters.paths, repository)
    if not inventory.files and not inventory.unreadable:
        return Observation(error=f"no Python file in {', '.join(parameters.paths)}")
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - only where it scans

    rules = chosen_rules(parameters.rules)
    kept = _caches(parameters, rules, context)
    # Compiling and semgrep are processes of their own: this one resolves meanwhile.
    with ThreadPoolExecutor(max_workers=2) as pool:
        compiling = pool.submit(_syntax_errors, inventory, kept, context)
        scanning = pool.submit(_run_semgrep, parameters, rules, inventory, kept, context)
        resolved, safe, unparsed = _resolve(parameters, inventory, kept, context)
        errors, semgrep = compiling.result(), scanning.result()
    kept.save()
    if context.candidate.cancellation.requested:
        return Observation(error=f"cancelled: {context.candidate.cancellation.reason}")
    named = {error.split(":", 1)[0] for error in errors}
    unreadable = [
        *inventory.unreadable,
        *errors,
        *(
            f"{problem} (the judge's Python {sys.version_info[0]}.{sys.version_info[1]} reads it; "
            "run the judge with the candidate's version if that is newer)"
            for problem in unparsed
            if problem.split(":", 1)[0] not in named
        ),
    ]
    findings, cleared = _together(inventory, resolved, safe, semgrep.found)
    findings += _floor_findings(parameters, context)
    notes = _notes(parameters, inventory, semgrep, cleared, context)
    error, details, output = "", list[str](), ""
    if unreadable:
        error, details = _listed("files that could not be analysed", unreadable), unreadable
    elif semgrep.problem:
        error, details, output = semgrep.problem, semgrep.details, semgrep.output
    return Observation(
        error=error,
        counts={"findings": len(findings), "scanned": len(inventory.files)},
        findings=tuple(findings),
        notes=(*details, *notes),
        output=output,
    )


def reproduce(parameters: With, context: Context) -> list[str]:
    """Return the plain semgrep command, with the same rules and nothing ignored."""
    root = context.candidate.repository.root
    rules = [RULES / f"{rule}.yaml" for rule in chosen_rules(parameters.rules)]
    configs = [f"--config={shown_path(rule, root)}" for rule in rules]
    flags = ["--metrics=off", "--disable-version-check", "--disable-nosem", "--no-git-ignore"]
    flags += ["--x-ignore-semgrepignore-files", "--strict", "--error"]
    command = [
        shown_path(_default_engine(), root),
        "scan",
        *configs,
        *flags,
        "--",
        *parameters.paths,
    ]
    return [shlex.join(command)]


def places(
    parameters: With, context: Context
) -> tuple[Inventory, dict[str, list[Place]], list[str]]:
    """Return what the resolver alone sees, by file, and what cannot be read."""
    inventory = python_files.inventory(parameters.paths, context.candidate.repository)
    result = _resolved(parameters, inventory, _Caches(), context)
    seen = {path: found.places for path, found in result.seen.items() if found.places}
    return inventory, seen, [*inventory.unreadable, *result.unreadable]


def _installed_version() -> str:
    from importlib import metadata  # noqa: PLC0415 - slow, and only who scans needs it

    return metadata.version("semgrep")


class _Caches:
    """What was found before, by file for semgrep and the compiler, by tree for the resolver."""

    def __init__(self, scan: str = "", syntax: str = "", loads: str = "") -> None:
        place = findings_cache.folder(os.environ) if scan else None
        self.scan = FindingsCache(place, f"semgrep-{scan[:32]}")
        self.syntax = FindingsCache(place, f"syntax-{syntax[:32]}")
        self.loads = FindingsCache(place, f"loads-{loads[:32]}")

    def save(self) -> None:
        for kept in (self.scan, self.syntax, self.loads):
            kept.save()


def _caches(parameters: With, rules: list[str], context: Context) -> _Caches:
    root = str(context.candidate.repository.original)
    own = _own_digest()
    texts = [
        (RULES / f"{rule}{suffix}").read_bytes() for rule in rules for suffix in (".yaml", ".py")
    ]
    version = _installed_version()
    python = context.candidate.python
    about = python.resolve().stat()
    return _Caches(
        scan=findings_cache.digest(root, own, version, parameters.engine, *rules, *texts),
        syntax=findings_cache.digest(root, own, python, about.st_size, about.st_mtime_ns),
        loads=findings_cache.digest(root, own, sys.version),
    )


@cache
def _own_digest() -> str:
    """Return a digest of the code that reads files: other code, other answers."""
    folder = Path(__file__).parent.parent
    own = [Path(__file__), folder / "python_files.py", folder / "probe" / "syntax.py"]
    return findings_cache.digest(
        *(path.read_bytes() for path in (*own, *sorted((folder / "loads").glob("*.py"))))
    )


def _syntax_errors(inventory: Inventory, kept: _Caches, context: Context) -> list[str]:
    """Return the files that the candidate's own interpreter does not compile."""
    files = [inventory.files[path] for path in inventory.plain]
    new = [file for file in files if kept.syntax.get(file.digest) is None]
    if not new:
        return []
    # A bare interpreter: the one that forks has imported torch, which takes longer than this.
    result = replace(context.candidate, warm=None).run_job(
        "syntax",
        context.device,
        context.criterion.timeout,
        {"files": [file.path for file in new]},
    )
    if result.problem:
        return [f"{', '.join(file.path for file in new[:3])}, …: compiling {result.problem}"]
    wrong = {r["path"]: f"{r['path']}:{r['line']}: {r['message']}" for r in result.of("unreadable")}
    for file in new:
        if file.path not in wrong:
            kept.syntax.put(file.digest, True)
    return list(wrong.values())


def _resolved(parameters: With, inventory: Inventory, kept: _Caches, context: Context) -> Scan:
    """Run the resolver, or take what it said of the same files before."""
    from tiergate.loads import scan  # noqa: PLC0415 - only where it resolves

    if RESOLVED not in chosen_rules(parameters.rules):
        return scan.Scan()
    sources = {path: file.source for path, file in inventory.files.items()}
    around = python_files.others(context.candidate.repository, inventory)
    key = findings_cache.digest(
        parameters.policy,
        *(file.digest for file in inventory.files.values()),
        *(part for path, data in around.items() for part in (path, data)),
    )
    known = kept.loads.get(key)
    if known is not None:
        return msgspec.convert(known, scan.Scan)
    result = scan.scan({**around, **sources}, list(sources), parameters.policy)
    kept.loads.put(key, msgspec.to_builtins(result))
    return result


def _resolve(
    parameters: With, inventory: Inventory, kept: _Caches, context: Context
) -> tuple[list[_Found], set[tuple[str, int, int]], list[str]]:
    """Return what the resolver sees, what it proves safe, and what it cannot parse."""
    result = _resolved(parameters, inventory, kept, context)
    found = [
        _Found(
            RESOLVED,
            path,
            place.line,
            place.column,
            f"{'unproven: ' if place.verdict == 'unproven' else ''}{place.message}",
            "the resolver",
        )
        for path, seen in result.seen.items()
        for place in seen.places
    ]
    safe = {(path, *place) for path, seen in result.seen.items() for place in seen.safe}
    return found, safe, result.unreadable


def _run_semgrep(
    parameters: With, rules: list[str], inventory: Inventory, kept: _Caches, context: Context
) -> _Semgrep:
    """Scan the files that can match a rule at all, and the canaries, and read what came of it."""
    seen = _Semgrep(version=_installed_version())
    new = _to_scan(rules, inventory, kept, seen)
    engine = _fast_engine() if parameters.engine == "fast" else None
    with tempfile.TemporaryDirectory(prefix="tiergate-") as folder:
        targets: dict[str, PythonFile] = {}
        for number, file in enumerate(new):
            if file.lines is None:
                targets[os.path.normpath(file.path)] = file
            else:
                extracted = Path(folder, f"{number}.py")
                extracted.write_bytes(file.source)
                targets[str(extracted)] = file
        done = _scan(parameters, list(targets), engine, context)
        seen.output = done.stderr.decode(errors="replace")[-4000:]
        if done.timed_out:
            seen.problem = f"timed out after {context.criterion.timeout:g} s"
            return seen
        try:
            results = msgspec.json.decode(done.stdout, type=_Results)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            seen.problem = f"semgrep ({done.ending}) wrote no readable results: {error}"
            return seen
    seen.version = results.version
    canaries = {str(RULES / f"{rule}.py"): rule for rule in rules}
    found = [
        _Found(
            match.rule,
            targets[path].path,
            match.start.line,
            match.start.col,
            match.extra.message,
            "semgrep",
        )
        for match in results.results
        if (path := os.path.normpath(match.path)) in targets
    ]
    seen.found += found
    _check(seen, results, targets, canaries)
    if not seen.problem:
        by_path: dict[str, list[_Found]] = {}
        for one in found:
            by_path.setdefault(one.path, []).append(one)
        for file in new:
            kept.scan.put(file.digest, msgspec.to_builtins(by_path.get(file.path, [])))
    return seen


def _to_scan(
    rules: list[str], inventory: Inventory, kept: _Caches, seen: _Semgrep
) -> list[PythonFile]:
    """Return the files that can match and were not scanned before; take over what was."""
    may_match = [_prefilter(rule) for rule in rules]
    new = []
    for file in inventory.files.values():
        known = kept.scan.get(file.digest)
        if known is not None:
            seen.found += msgspec.convert(known, list[_Found])
        elif not any(matches(file.source) for matches in may_match):
            kept.scan.put(file.digest, [])
        elif _is_text(file.source):
            # What is no text breaks semgrep's own output; the compiler names such a file.
            new.append(file)
    return new


def _is_text(source: bytes) -> bool:
    try:
        return "\0" not in source.decode("utf-8")
    except UnicodeDecodeError:
        return False


def _check(
    seen: _Semgrep,
    results: _Results,
    targets: dict[str, PythonFile],
    canaries: dict[str, str],
) -> None:
    """Say why what semgrep found cannot be believed."""
    if results.errors:
        texts = [_error_text(error) for error in results.errors]
        for name, file in targets.items():
            texts = [text.replace(name, file.path) for text in texts]
        seen.problem, seen.details = _listed("semgrep reported errors", texts), texts
        return
    scanned = {os.path.normpath(path) for path in results.paths.scanned}
    if skipped := [name for name in (*targets, *canaries) if name not in scanned]:
        names = [targets[name].path if name in targets else name for name in skipped]
        seen.problem, seen.details = _listed("files that semgrep did not scan", names), names
        return
    dead = [
        rule
        for path, rule in canaries.items()
        if _annotated_lines(Path(path), rule)
        != {m.start.line for m in results.results if m.path == path and m.rule == rule}
    ]
    if dead:
        seen.problem = _listed("rules that do not find their own examples", dead)
        seen.details = dead


def _scan(
    parameters: With, files: list[str], engine: Path | None, context: Context
) -> processes.Completed:
    start: list[str | Path] = (
        ["osemgrep", "scan", "--experimental"] if engine else [_default_engine(), "scan"]
    )
    rules = chosen_rules(parameters.rules)
    configs = [part for rule in rules for part in ("--config", RULES / f"{rule}.yaml")]
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
    canaries = [RULES / f"{rule}.py" for rule in rules]
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


def _prefilter(rule: str) -> Callable[[bytes], object]:
    """Return what is false of a file's bytes only where the file cannot match a rule."""
    if rule == RESOLVED:
        from tiergate.loads import relevance  # noqa: PLC0415 - only where it scans

        return relevance.may_match
    (mentions,) = _MENTIONS.findall((RULES / f"{rule}.yaml").read_text(encoding="utf-8"))
    return re.compile(mentions.encode()).search


def _together(
    inventory: Inventory,
    resolved: list[_Found],
    safe: set[tuple[str, int, int]],
    matched: list[_Found],
) -> tuple[list[Finding], int]:
    """Put together what both saw; what the resolver proves safe is no finding."""
    at = {(one.path, one.line, one.column): one for one in resolved}
    on = {(one.path, one.line): one for one in resolved}
    both: set[int] = set()
    alone: list[_Found] = []
    cleared = 0
    for match in matched:
        place = (match.path, match.line, match.column)
        if match.rule != RESOLVED:
            alone.append(match)
        elif place in at:
            both.add(id(at[place]))
        elif place in safe:
            cleared += 1
        elif place[:2] in on:
            both.add(id(on[place[:2]]))
        else:
            alone.append(match)
    found = [
        Finding(
            rule=one.rule,
            path=one.path,
            line=inventory.files[one.path].line(one.line),
            column=one.column,
            message=_message(one, both=id(one) in both, file=inventory.files[one.path]),
            code=inventory.files[one.path].code(one.line),
        )
        for one in (*resolved, *alone)
    ]
    return sorted(found, key=lambda f: (f.path, f.line, f.column, f.rule)), cleared


def _message(one: _Found, *, both: bool, file: PythonFile) -> str:
    text = one.message
    if one.rule == RESOLVED:
        text += f" [seen by {'semgrep and the resolver' if both else one.by}]"
    return text if file.lines is None else f"in a notebook: {text}"


def _floor_findings(parameters: With, context: Context) -> list[Finding]:
    """Under the policy ``floor-2.6``, a floor that does not protect is a finding itself."""
    if parameters.policy != "floor-2.6":
        return []
    floors = _floors(context)
    message = (
        "the policy floor-2.6 lets weights_only be left out, but the project allows a torch below "
        "2.6, where it is False by default and where even True does not protect "
        "(CVE-2025-32434); declare torch>=2.6"
    )
    if not floors:
        return [Finding(RESOLVED, "pyproject.toml", 1, 1, message, "no torch is declared")]
    return [
        Finding(RESOLVED, floor.path, floor.line, 1, message, floor.text)
        for floor in floors
        if not floor.protects
    ]


def _floors(context: Context) -> list[Any]:
    from tiergate import torch_floor  # noqa: PLC0415 - only where it scans

    repository = context.candidate.repository

    def read(name: str) -> bytes:
        path = repository.root / name
        return path.read_bytes() if path.is_file() else b""

    return torch_floor.declared(repository.files, read)


def _notes(
    parameters: With, inventory: Inventory, semgrep: _Semgrep, cleared: int, context: Context
) -> list[str]:
    """Return what a person should know of the scan beside its findings."""
    notes = []
    if parameters.engine == "fast" and _fast_engine() is None:
        notes.append("the fast engine is not installed")
    notes.append(f"{len(inventory.files)} files scanned by semgrep {semgrep.version}")
    if cleared:
        notes.append(
            f"{cleared} of semgrep's matches are provably safe, says the resolver: a name that is "
            "only ever called with weights_only=True, a constant, or something else of that name"
        )
    if inventory.skipped:
        notes.append(_listed("notebooks in another language than Python", inventory.skipped))
    if suppressions := inventory.suppressions():
        notes.append(_listed("suppression comments, which count for nothing", suppressions))
    if RESOLVED in chosen_rules(parameters.rules):
        notes += [
            f"{floor.path}:{floor.line}: {floor.text!r} allows a torch below 2.6, where even "
            "weights_only=True does not protect (CVE-2025-32434); declare torch>=2.6"
            for floor in _floors(context)
            if not floor.protects
        ]
    return notes


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


def _listed(what: str, items: Sequence[str]) -> str:
    more = f", and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return f"{what}: {'; '.join(items[:_SHOWN])}{more}"
