"""Workflow files of a repository: which checks they report, and on which events they run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tiergate.errors import UserError

FOLDER = ".github/workflows/"


@dataclass(frozen=True)
class Workflow:
    """A workflow file, as far as required checks go by it."""

    path: str
    document: dict[str, Any]

    @property
    def events(self) -> dict[str, Any]:
        """The events it runs on, with their filters."""
        on = self.document.get("on")
        if isinstance(on, str):
            return {on: None}
        if isinstance(on, list):
            return {str(event): None for event in on}
        return on if isinstance(on, dict) else {}

    @property
    def jobs(self) -> dict[str, dict[str, Any]]:
        """The jobs by id."""
        jobs = self.document.get("jobs")
        if not isinstance(jobs, dict):
            return {}
        return {str(key): job for key, job in jobs.items() if isinstance(job, dict)}

    def job(self, check: str) -> dict[str, Any] | None:
        """Return the job that reports a check, or None.

        The jobs of a reusable workflow report as ``CALLER / CALLED``.
        """
        for key, job in self.jobs.items():
            name = str(job.get("name") or key)
            # A name that depends on the event is told by the text that it can be.
            if (
                name == check
                or ("${{" in name and f"'{check}'" in name)
                or ("uses" in job and check.startswith(f"{name} / "))
            ):
                return job
        return None

    @property
    def checks(self) -> list[str]:
        """The names that its jobs report as."""
        return [
            str(job.get("name") or key) + (" / …" if "uses" in job else "")
            for key, job in self.jobs.items()
        ]


def parse(path: str, text: str) -> Workflow:
    """Read a workflow file.

    Raises:
        UserError: it is no YAML mapping.
    """
    import yaml  # noqa: PLC0415 - only the commands that look at workflows pay for it

    try:
        # Every scalar as text: YAML 1.1 would read `on` as true.
        document = yaml.load(text, yaml.BaseLoader)  # noqa: S506 - it makes strings alone
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path}: not YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(document, dict):
        raise UserError(f"{path}: not a workflow")
    return Workflow(path, document)
