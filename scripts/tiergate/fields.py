"""Types of values that the spec and the reports share."""

# Annotations are evaluated once, here: as text, each would be compiled anew when the types are
# asked for.
import posixpath
import re
from datetime import date
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Device = Literal["cpu", "cuda"]

Identifier = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$",
        description="Letters, digits, '-', '_' and '.'; at most 64.",
    ),
]
RepositoryPath = Annotated[
    str,
    Meta(
        min_length=1,
        description="A path inside the repository, relative to its root, with '/'.",
        extra={"check": "repository-path"},
    ),
]
Seconds = Annotated[float, Meta(gt=0, le=86_400, description="Seconds.")]
Gigabytes = Annotated[float, Meta(gt=0, le=10_000, description="Gigabytes, of 10⁹ bytes.")]
EnvironmentName = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]


class Remedy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Who mends a failed criterion, and how."""

    task: Annotated[str, Meta(description="The task that mends it.", examples=["0.16b"])] = ""
    owner: Annotated[str, Meta(description="Who does the task.", examples=["dev-ml"])] = ""
    skill: Annotated[
        str, Meta(description="What the owner needs to be able to do.", examples=["backend-dev"])
    ] = ""
    playbook: Annotated[
        str, Meta(description="The procedure to follow.", examples=["simple-feature"])
    ] = ""
    hint: Annotated[
        str,
        Meta(description="What to look at first.", examples=["read the first collection error"]),
    ] = ""
    files: Annotated[
        list[RepositoryPath],
        Meta(description="The files to change.", examples=[["src/shop/prices.py"]]),
    ] = []


def check_repository_path(path: str) -> str | None:
    """Say why ``path`` is not a relative path inside the repository, or return None."""
    if "\\" in path or "\0" in path or re.match(r"[A-Za-z]:", path):
        return f"{path!r} is not a relative path with '/'"
    if path.startswith(("/", "~")):
        return f"{path!r} is absolute; write it relative to the repository's root"
    if posixpath.normpath(path).split("/")[0] == "..":
        return f"{path!r} is outside the repository"
    if path.startswith("-"):
        return f"{path!r} looks like an option; write './{path}'"
    return None


def check_date(text: str) -> str | None:
    """Say why ``text`` is no day of the calendar, or return None."""
    try:
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            date.fromisoformat(text)
            return None
    except ValueError:
        pass
    return f"{text[:40]!r} is no date; write YYYY-MM-DD"
