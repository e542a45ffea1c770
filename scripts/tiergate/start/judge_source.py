"""Where a workflow gets the judge from: what was said, or where this judge itself came from."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from tiergate import __version__
from tiergate.errors import NotEvaluatedError, UserError
from tiergate.repository import git

_USES = re.compile(
    r"(?P<repository>[\w.-]+/[\w.-]+)(?P<path>/\.github/workflows/[\w.-]+\.ya?ml)?@(?P<ref>[\w./-]+)"
)
_SSH = re.compile(r"(?:ssh://)?git@(?P<host>[\w.-]+)[:/](?P<path>[\w./-]+)")
_UNKNOWN = "this one was installed from a folder that no server is known to have"


@dataclass(frozen=True)
class Package:
    """What pip installs; empty where nobody knows."""

    requirement: str
    why_unknown: str = ""


@dataclass(frozen=True)
class Uses:
    """An action, or a workflow to reuse, as ``uses:`` names it."""

    repository: str
    ref: str
    path: str = ""

    @property
    def name(self) -> str:
        """What stands behind ``uses:``."""
        return f"{self.repository}{self.path}@{self.ref}"


def chosen(judge: str, uses: str) -> Package | Uses:
    """Return the source that a person names, or else where this judge came from.

    Raises:
        UserError: what was named cannot be written into a workflow.
    """
    if judge and uses:
        raise UserError("--judge and --uses exclude each other: the judge comes from one place")
    if uses:
        found = _USES.fullmatch(uses)
        if found is None:
            raise UserError(
                f"--uses {uses!r}: write it OWNER/REPO@REF for the action, or "
                "OWNER/REPO/.github/workflows/gate.yml@REF for the workflow"
            )
        return Uses(found["repository"], found["ref"], found["path"] or "")
    if judge:
        if not judge.isprintable() or "${{" in judge or judge.startswith("-"):
            raise UserError(f"--judge {judge!r}: name one package, wheel or git+https://… for pip")
        return Package(judge)
    return installed()


def installed() -> Package:
    """Return what pip would install to get the judge that runs here."""
    try:
        text = metadata.distribution("tiergate").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return _of_checkout(Path(__file__).parents[2])
    # Without that file it came from an index, where others find it as well.
    return of_origin(json.loads(text)) if text else Package(f"tiergate=={__version__}")


def of_origin(origin: Mapping[str, Any]) -> Package:
    """Return the source that an installer's record (PEP 610) tells of."""
    url = str(origin.get("url", ""))
    if url.startswith("file:"):
        path = Path(unquote(urlsplit(url).path))
        return _of_checkout(path) if "dir_info" in origin else Package("", _UNKNOWN)
    vcs = origin.get("vcs_info", {})
    folder = f"#subdirectory={origin['subdirectory']}" if origin.get("subdirectory") else ""
    address = _without_secrets(url)
    if vcs.get("vcs") == "git":
        return Package(f"git+{address}@{vcs['commit_id']}{folder}")
    return Package(address) if url.startswith("https:") else Package("", _UNKNOWN)


def _of_checkout(folder: Path) -> Package:
    """Return the pushed commit of the checkout that ``folder`` lies in."""
    top = _git(folder, "rev-parse", "--show-toplevel")
    remote = _git(folder, "remote", "get-url", "origin")
    commit = _git(folder, "rev-parse", "HEAD")
    if not (
        top and remote and commit and _git(folder, "branch", "--remotes", "--contains", commit)
    ):
        return Package("", _UNKNOWN)
    ssh = _SSH.fullmatch(remote)
    url = f"https://{ssh['host']}/{ssh['path']}" if ssh else _without_secrets(remote)
    if not url.startswith("https://"):
        return Package("", _UNKNOWN)
    below = folder.resolve().relative_to(Path(top).resolve()).as_posix()
    return Package(f"git+{url}@{commit}" + (f"#subdirectory={below}" if below != "." else ""))


def _git(folder: Path, *words: str) -> str:
    try:
        return git(folder, *words).decode(errors="replace").strip()
    except NotEvaluatedError:
        return ""


def _without_secrets(url: str) -> str:
    """Return an address without a user's name or token."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
