"""What the resolver says of the files, now or before."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tiergate import findings_cache, python_files
from tiergate.loads.calls import Policy
from tiergate.loads.scan import Scan, scan
from tiergate.python_files import Inventory
from tiergate.repository import Repository
from tiergate.scanning.findings import Found
from tiergate.scanning.kept import Caches
from tiergate.scanning.rules import RESOLVED


def resolved(
    chosen: Sequence[str],
    policy: Policy,
    inventory: Inventory,
    kept: Caches,
    repository: Repository,
) -> Scan:
    """Run the resolver, or take what it said of the same files before."""
    if RESOLVED not in chosen:
        return Scan()
    sources = {path: file.source for path, file in inventory.files.items()}
    around = python_files.others(repository, inventory)
    if not kept.loads.in_use:
        return scan({**around, **sources}, list(sources), policy)
    key = findings_cache.digest(
        policy,
        *(file.digest for file in inventory.files.values()),
        *(part for path, data in around.items() for part in (path, data)),
    )
    known = kept.loads.get(key)
    if known is not None:
        return msgspec.convert(known, Scan)
    result = scan({**around, **sources}, list(sources), policy)
    kept.loads.put(key, msgspec.to_builtins(result))
    return result


def found_and_safe(result: Scan) -> tuple[list[Found], set[tuple[str, int, int]]]:
    """Return what the resolver sees, and where it proves that nothing is unsafe."""
    found = [
        Found(
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
    return found, safe
