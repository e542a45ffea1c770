"""What a pytest report says of something that did not pass."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .text import cause, clip

if TYPE_CHECKING:
    from .ownership import Ownership

_TRACEBACK = 6000
_SECTION = 1500


def traceback(report: Any) -> str:
    """Return a report's text, clipped."""
    return clip(report.longreprtext, _TRACEBACK)


def explain(report: Any, owned: Ownership) -> dict[str, Any]:
    """Return what was raised, where the repository is to be mended, and the traceback."""
    crash = getattr(report.longrepr, "reprcrash", None)
    raised, places = cause(report.longreprtext)
    if crash is not None:
        raised = crash.message
        places.append((crash.path, crash.lineno))
    elif isinstance(report.longrepr, tuple):
        *place, raised = report.longrepr
        places.append(tuple(place))
    # What an installed module raised is mended where the repository calls it. A test may have
    # left another working directory behind.
    own = [place for place in places if owned.file(str(Path(owned.root, place[0])))]
    path, line, _ = report.location
    if own:
        path, line = own[-1]
    elif line is not None:
        line += 1
    sections = [f"{title}\n{clip(text, _SECTION)}" for title, text in report.sections if text]
    return {
        "message": clip(raised, 1000),
        "details": clip("\n".join([report.longreprtext, *sections]), _TRACEBACK),
        "path": owned.relative(path),
        "line": line,
    }
