"""The gate's one comment on a pull request: made once, and replaced from then on."""

from __future__ import annotations

from typing import Any, Literal

from tiergate.errors import UserError
from tiergate.github.client import Client, repository_name

ACTIONS = "github-actions[bot]"
"""Who comments with the token of a workflow."""

PERMISSION = (
    "'Pull requests: write' of the repository; a workflow's token has it where the job has the "
    "permission 'pull-requests: write', and never on a pull request from a fork"
)

Outcome = Literal["posted", "replaced", "unchanged"]


def pull_request(text: str) -> tuple[str, int]:
    """Return repository and number of ``OWNER/REPO#NUMBER``.

    Raises:
        UserError: it is none.
    """
    name, _, number = text.rpartition("#")
    if not (number.isascii() and number.isdecimal() and 0 < len(number) < 10 and int(number)):
        raise UserError(f"--post {text}: write it OWNER/REPO#NUMBER, such as octo/transformer#7")
    return repository_name(name), int(number)


def post(client: Client, repository: str, number: int, body: str, author: str) -> Outcome:
    """Post a comment, or replace the one whose first line is that of ``body``.

    Args:
        client: with a token that may write comments.
        repository: ``OWNER/REPO``.
        number: the pull request's.
        body: the comment; its first line is the mark by which it is found again.
        author: the login that the token comments as. Anybody may write a comment with the mark:
            those of others are left alone.
    """
    mark = body.partition("\n")[0]
    comments: list[Any] = client.pages(f"/repos/{repository}/issues/{number}/comments")
    for comment in comments:
        said = str(comment["body"]).replace("\r\n", "\n")
        if (comment["user"] or {}).get("login") == author and said.partition("\n")[0] == mark:
            if said.rstrip() == body.rstrip():
                return "unchanged"
            place = f"/repos/{repository}/issues/comments/{int(comment['id'])}"
            client.send("PATCH", place, {"body": body})
            return "replaced"
    client.send("POST", f"/repos/{repository}/issues/{number}/comments", {"body": body})
    return "posted"
