"""The repository and branch that a command is about, and what stands in it."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import quote

from tiergate.github import codeowners
from tiergate.github.client import Client, UnreachableError, repository_name


@dataclass(frozen=True)
class OwnersFile:
    """The CODEOWNERS file that counts."""

    path: str
    rules: list[codeowners.Rule]


class Target:
    """A branch of a repository on GitHub.

    Args:
        client: asks for it.
        name: ``OWNER/REPO``; ``name`` of the object is what GitHub calls it now.
        branch: the repository's default branch where it is empty.
    """

    def __init__(self, client: Client, name: str, branch: str = "") -> None:
        self.client = client
        about = client.get(f"/repos/{repository_name(name)}")
        try:
            self.name = str(about["full_name"])
            default = str(about["default_branch"])
        except (TypeError, KeyError):
            raise UnreachableError(f"GET /repos/{name}: the answer is no repository") from None
        self.branch = branch or default
        self.default = self.branch == default

    @property
    def path(self) -> str:
        """The repository's place in the API."""
        return f"/repos/{self.name}"

    @property
    def owner(self) -> str:
        """The user or organisation."""
        return self.name.split("/")[0]

    @cached_property
    def actions_app(self) -> int:
        """The id of GitHub Actions, the app that reports the checks of workflows."""
        about = self.client.get("/apps/github-actions")
        if not isinstance(about, dict) or not isinstance(about.get("id"), int):
            raise UnreachableError("GET /apps/github-actions: the answer names no id")
        return int(about["id"])

    @cached_property
    def tree(self) -> tuple[list[str], bool]:
        """The branch's files, and whether GitHub cut the list short."""
        found: Any = self.client.get(
            f"{self.path}/git/trees/{quote(self.branch, safe='')}", recursive="1"
        )
        files = [entry["path"] for entry in found["tree"] if entry["type"] == "blob"]
        return files, bool(found["truncated"])

    def text(self, path: str) -> str | None:
        """Return a file of the branch, or None where there is none."""
        found = self.client.find(f"{self.path}/contents/{quote(path)}", ref=self.branch)
        if found is None:
            return None
        if not isinstance(found, dict) or found.get("encoding") != "base64":
            raise UnreachableError(
                f"{path}: GitHub does not give its content: too large, or a link"
            )
        return base64.b64decode(found["content"]).decode(errors="replace")

    @cached_property
    def owners(self) -> OwnersFile | None:
        """CODEOWNERS of the branch, from the first place that has one."""
        for path in codeowners.PLACES:
            if (text := self.text(path)) is not None:
                return OwnersFile(path, codeowners.parse(text))
        return None

    @property
    def judging(self) -> list[str]:
        """What judges here, or in repositories that use this one."""
        return codeowners.judging(self.tree[0])

    def owner_gaps(self) -> list[codeowners.Gap]:
        """Return what judges and can be changed without a review by code owners."""
        files, _ = self.tree
        return codeowners.gaps(self.owners.rules if self.owners else [], files)
