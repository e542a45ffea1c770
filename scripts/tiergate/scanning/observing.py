"""Evaluates one scan: every file read by all three, and what they saw put together."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tiergate import python_files
from tiergate.checkers import Context, Observation
from tiergate.loads.scan import Place
from tiergate.python_files import Inventory
from tiergate.repository import Repository
from tiergate.scanning import engines, floors, matching, syntax
from tiergate.scanning.answers import Answers
from tiergate.scanning.findings import together
from tiergate.scanning.kept import Caches, caches
from tiergate.scanning.listing import listed
from tiergate.scanning.matching import Matched
from tiergate.scanning.request import Request
from tiergate.scanning.resolving import found_and_safe, resolved
from tiergate.scanning.rules import RESOLVED
from tiergate.torch_floor import Floor


def observe(request: Request, context: Context, answers: Answers) -> Observation:
    """Take the inventory, compile every file, scan, and compare what was scanned."""
    repository = context.candidate.repository
    inventory = python_files.inventory(request.paths, repository)
    if not inventory.files and not inventory.unreadable:
        return Observation(error=f"no Python file in {', '.join(request.paths)}")
    engine = engines.fast() if request.engine == "fast" else None
    kept = caches(request.rules, request.engine, context.candidate)
    own = syntax.is_own(context.candidate.python)
    # Semgrep and the candidate's interpreter are processes of their own: this one resolves
    # meanwhile, and compiles where it is the same interpreter.
    with ThreadPoolExecutor(max_workers=2) as pool:
        scanning = pool.submit(matching.run, request.rules, engine, inventory, kept, context)
        if not own:
            compiling = pool.submit(syntax.errors_by_candidate, inventory, kept, context)
        errors = syntax.errors_by_judge(inventory, kept) if own else []
        scan = resolved(request.rules, request.policy, inventory, kept, repository)
        errors += [] if own else compiling.result()
        matched = scanning.result()
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
            for problem in scan.unreadable
            if problem.split(":", 1)[0] not in named
        ),
    ]
    findings, cleared = together(inventory, *found_and_safe(scan), matched.found)
    known = floors.declared(repository) if RESOLVED in request.rules else []
    if request.policy == "floor-2.6":
        findings += floors.findings(known)
    notes = _notes(request, inventory, matched, cleared, known)
    error, details, output = "", list[str](), ""
    if unreadable:
        error, details = listed("files that could not be analysed", unreadable), unreadable
    elif matched.problem:
        error, details, output = matched.problem, matched.details, matched.output
    observed = Observation(
        error=error,
        counts={"findings": len(findings), "scanned": len(inventory.files)},
        findings=tuple(findings),
        notes=(*details, *notes),
        output=output,
    )
    # What went wrong around the files may go right the next time.
    if not matched.problem and not inventory.unreadable and (own or not errors):
        answers.put(observed)
    return observed


def places(
    request: Request, repository: Repository
) -> tuple[Inventory, dict[str, list[Place]], list[str]]:
    """Return what the resolver alone sees, by file, and what cannot be read."""
    inventory = python_files.inventory(request.paths, repository)
    result = resolved(request.rules, request.policy, inventory, Caches(), repository)
    seen = {path: found.places for path, found in result.seen.items() if found.places}
    return inventory, seen, [*inventory.unreadable, *result.unreadable]


def _notes(
    request: Request,
    inventory: Inventory,
    matched: Matched,
    cleared: int,
    known: Sequence[Floor],
) -> list[str]:
    """Return what a person should know of the scan beside its findings."""
    notes = []
    if request.engine == "fast" and engines.fast() is None:
        notes.append("the fast engine is not installed")
    version = matched.version or engines.installed_version()
    notes.append(f"{len(inventory.files)} files scanned by semgrep {version}")
    if cleared:
        notes.append(
            f"{cleared} of semgrep's matches are provably safe, says the resolver: a name that is "
            "only ever called with weights_only=True, a constant, or something else of that name"
        )
    if inventory.skipped:
        notes.append(listed("notebooks in another language than Python", inventory.skipped))
    if suppressions := inventory.suppressions():
        notes.append(listed("suppression comments, which count for nothing", suppressions))
    return notes + [
        f"{floor.path}:{floor.line}: {floor.text!r} allows a torch below 2.6, where even "
        "weights_only=True does not protect (CVE-2025-32434); declare torch>=2.6"
        for floor in known
        if not floor.protects
    ]
