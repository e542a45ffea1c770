"""A survey → the criteria that a first gate could hold, before anything was measured."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from tiergate.expectation import Bound
from tiergate.start.survey import Module, Project, Survey

MOST_IMPORTS = 12
"""Modules that get a criterion of their own."""

_MOST_PATHS = 8
# Outcomes that are a state of a suite rather than something broken: they are held as they are.
_HELD = ("skipped", "xfailed")


@dataclass(frozen=True)
class Draft:
    """A criterion, and what is said above it in the file.

    Attributes:
        id: its id.
        name: what it holds, in words.
        uses: its checker.
        parameters: its ``with:``.
        counted: the outcome that ``expect:`` names first; the number observed is the least.
        numbers: what was measured; before that, at least one of what is counted is expected.
        needs: other drafts.
        comments: lines above it.
    """

    id: str
    name: str
    uses: str
    parameters: Mapping[str, Any]
    counted: str = ""
    numbers: Mapping[str, Bound] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    comments: tuple[str, ...] = ()

    @property
    def expect(self) -> Mapping[str, Bound]:
        """What stands under ``expect:``; empty where the checker's own default holds."""
        if self.numbers or not self.counted:
            return self.numbers
        return {self.counted: Bound(1, at_least=True)}

    def measured(self, observed: Mapping[str, int]) -> Draft:
        """Return it with true numbers, where what it counts was observed."""
        if not self.counted:
            return self
        held = {name: Bound(observed[name]) for name in _HELD if observed.get(name)}
        comments = self.comments
        if held:
            words = " and ".join(f"{bound} {name}" for name, bound in held.items())
            comments = (*comments, f"{words} today: held as they are, so that no more can hide.")
        count = Bound(max(observed.get(self.counted, 0), 1), at_least=True)
        return replace(self, numbers={self.counted: count, **held}, comments=comments)


def drafts(survey: Survey, *, has_pytest: bool) -> list[Draft]:
    """Return what can be held of this repository, cheapest first."""
    made = [*_imports(survey), *_loads(survey), *_models(survey)]
    for project in survey.projects:
        made += _tests(project, survey, has_pytest=has_pytest)
    return made


def _imports(survey: Survey) -> Iterator[Draft]:
    modules = [module for project in survey.projects for module in project.modules]
    for module in modules[:MOST_IMPORTS]:
        yield Draft(
            id=_identifier(f"import-{module.name}"),
            name=f"{module.name} {'exports its names' if module.names else 'imports'}",
            uses="imports",
            parameters=_module(module),
        )


def _module(module: Module) -> dict[str, Any]:
    return {"module": module.name, **({"names": list(module.names)} if module.names else {})}


def _loads(survey: Survey) -> Iterator[Draft]:
    held_otherwise = bool(survey.projects)
    if not survey.sources or not (survey.uses_torch or survey.loads or not held_otherwise):
        return
    if survey.loads:
        said = f"torch.load is called in {_listed(survey.loads)}."
    else:
        said = "Nothing calls torch.load today; this holds it so."
    yield Draft(
        id="loads",
        name="nothing loads a pickle without a provable weights_only=True",
        uses="semgrep",
        parameters={"rules": ["unsafe-torch-load"], "paths": _folders(survey.sources)},
        comments=(
            said,
            "Comments such as `# nosemgrep` count for nothing; `tiergate fix loads` mends what a",
            "program can. The rule group unsafe-deserialization holds pickle, joblib and others.",
        ),
    )


def _models(survey: Survey) -> Iterator[Draft]:
    if survey.models:
        yield Draft(
            id="checkpoints",
            name="model files in the repository hold nothing that runs code when loaded",
            uses="checkpoints",
            parameters={"paths": _folders(survey.models)},
            comments=(f"Told by content, whatever the name: {_listed(survey.models)}.",),
        )


def _tests(project: Project, survey: Survey, *, has_pytest: bool) -> Iterator[Draft]:
    suffix = "" if len(survey.projects) == 1 else f"-{_identifier(project.folder)}"
    where = "" if project.folder == "." else f" of {project.folder}"
    if not has_pytest:
        yield from _unittest(project, f"tests{suffix}", where)
        return
    arguments = _arguments(project)
    if project.test_files:
        parameters: dict[str, Any] = {"paths": project.test_paths, **arguments}
        yield Draft(
            id=f"collection{suffix}",
            name=f"the suite{where} collects whole and no test file is left out",
            uses="collection",
            parameters=parameters,
            counted="collected",
            comments=("As many tests as there are today, or more: none is lost unnoticed.",),
        )
        dropped = [o for o in project.options if not _kept(o)]
        options = (f"The configuration's addopts do not count here: {shlex.join(dropped)}",)
        yield Draft(
            id=f"tests{suffix}",
            name=f"the tests{where} pass",
            uses="pytest",
            parameters=parameters,
            counted="passed",
            needs=(f"collection{suffix}",),
            comments=(
                "Every outcome that is not named must be zero: failed, skipped, xfailed, …",
                *(options if dropped else ()),
            ),
        )
    if project.unittest_only:
        yield from _unittest(project, f"unittest{suffix}", where)
    if project.doctests:
        yield Draft(
            id=f"doctests{suffix}",
            name=f"the examples in docstrings{where} are true",
            uses="pytest",
            parameters={
                "paths": project.doctests[:200],
                "args": ["--doctest-modules", *arguments.get("args", [])],
            },
            counted="passed",
        )


def _unittest(project: Project, criterion_id: str, where: str) -> Iterator[Draft]:
    """Run what only ``unittest`` can run; it says no more than an exit code."""
    if not project.unittest_only and project.style != "unittest":
        return
    for number, folder in enumerate(project.test_paths or [project.folder]):
        start = folder if not folder.endswith(".py") else str(PurePosixPath(folder).parent)
        top = ["-t", project.folder] if folder in project.test_packages else []
        yield Draft(
            id=criterion_id if number == 0 else f"{criterion_id}-{number + 1}",
            name=f"the unittest tests{where} pass",
            uses="command",
            parameters={"run": ["{python}", "-m", "unittest", "discover", "-s", start, *top]},
            comments=(
                "An exit code alone: a skipped or vanished test is not seen. Files named test_*.py",
                "and pytest in the interpreter let `uses: pytest` count them.",
            ),
        )


def _arguments(project: Project) -> dict[str, list[str]]:
    kept = [option for option in project.options if _kept(option)]
    if not kept and project.same_names:
        kept = ["--import-mode=importlib"]
    return {"args": kept} if kept else {}


def _kept(option: str) -> bool:
    return option.startswith("--import-mode=")


def _folders(names: list[str]) -> list[str]:
    """Return the top-level folders, and single files at the root."""
    tops = list(dict.fromkeys(name.split("/")[0] for name in names))
    return tops if len(tops) <= _MOST_PATHS else ["."]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 3} more files" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _identifier(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.")[:64]
