"""Which run of a workflow left what is to be restored."""

from __future__ import annotations

from typing import Any

from tiergate.github.client import Client

PERMISSION = "'Actions: read' of the repository; a workflow's job asks for 'actions: read'"


def latest_push(client: Client, repository: str, run: str, branch: str) -> int | None:
    """Return the latest run for a push to a branch that succeeded, or None where there is none.

    Runs for other events are left out: a pull request's judge its own code, whatever its branch is
    called.

    Args:
        client: with a token that may read runs.
        repository: ``OWNER/REPO``.
        run: the id of any run of the workflow.
        branch: such as ``main``.
    """
    workflow = int(client.get(f"/repos/{repository}/actions/runs/{int(run)}")["workflow_id"])
    found: Any = client.get(
        f"/repos/{repository}/actions/workflows/{workflow}/runs",
        branch=branch,
        event="push",
        status="success",
        per_page=1,
    )
    runs = found["workflow_runs"]
    return int(runs[0]["id"]) if runs else None
