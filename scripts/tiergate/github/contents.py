"""One file of a branch on GitHub, read and written as a commit, without a clone."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tiergate.errors import UserError
from tiergate.github.client import Client, UnreachableError

PERMISSION = (
    "'Contents: write' of the repository (a workflow's job asks for 'contents: write'), and the "
    "branch's rules must let its owner push"
)


@dataclass(frozen=True)
class RemoteFile:
    """A file of a branch.

    Args:
        client: with a token that may write the repository's contents.
        repository: ``OWNER/REPO``.
        branch: a branch that exists.
        path: from the repository's root.

    Raises:
        UserError: the path leaves the repository.
    """

    client: Client
    repository: str
    branch: str
    path: str

    def __post_init__(self) -> None:
        if not self.path or any(part in {"", ".", ".."} for part in self.path.split("/")):
            raise UserError(f"{self.path}: must be a path from the repository's root")

    def read(self) -> tuple[str, str]:
        """Return the text and the version, both empty where there is no such file.

        Raises:
            UnreachableError: GitHub does not give it as text.
        """
        found: Any = self.client.find(self._place, ref=self.branch)
        if found is None:
            return "", ""
        if not isinstance(found, dict) or found.get("encoding") != "base64":
            raise UnreachableError(f"{self.path}: GitHub does not give its content as a file")
        return base64.b64decode(found["content"]).decode("utf-8", "replace"), str(found["sha"])

    def write(self, text: str, version: str, message: str) -> None:
        """Commit a text in place of the version that was read.

        Raises:
            RefusedError: somebody else changed it meanwhile, or the token may not write.
        """
        body = {
            "message": message,
            "content": base64.b64encode(text.encode()).decode(),
            "branch": self.branch,
        }
        self.client.send("PUT", self._place, body | ({"sha": version} if version else {}))

    @property
    def _place(self) -> str:
        return f"/repos/{self.repository}/contents/{quote(self.path)}"
