"""What a repository consists of, told from the names and the text of its files alone."""

from __future__ import annotations

import ast
import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

from tiergate.fields import check_repository_path
from tiergate.models.files import is_model
from tiergate.repository import Repository
from tiergate.start import configuration

_MOST_READ = 2 * 1024 * 1024
_TEST_FOLDERS = frozenset({"test", "tests", "testing"})
_SOURCE_FOLDERS = frozenset({"src", "lib", "python"})
# Beside a project's code, not part of what others import.
_ASIDE = frozenset(
    {"benchmark", "benchmarks", "build", "ci", "dist", "doc", "docs", "example", "examples",
     "notebooks", "scripts", "tools"}
)  # fmt: skip
_NO_MODULES = frozenset({"conftest", "noxfile", "setup", "tasks", "__main__"})
_TEST_FILES = ("test_*.py", "*_test.py")
_UNITTEST_FILES = "test*.py"
_IMPORTED = re.compile(r"^[ \t]*(?:from|import)[ \t]+([^\W\d]\w*)", re.MULTILINE)
_DOCTEST = re.compile(r"^[ \t]*>>> ", re.MULTILINE)
_TEST_CASE = re.compile(r"\bunittest\b")


@dataclass(frozen=True)
class Module:
    """A module that the repository offers to import."""

    name: str
    names: tuple[str, ...] = ()
    """What its ``__all__`` lists, where that is written out."""


@dataclass
class Project:
    """A folder with a package of its own: the repository itself, or a part of a monorepo."""

    folder: str
    """Relative to the repository; "." for the repository itself."""
    roots: list[str] = field(default_factory=list)
    """Folders that belong on ``sys.path``."""
    modules: list[Module] = field(default_factory=list)
    test_paths: list[str] = field(default_factory=list)
    test_files: list[str] = field(default_factory=list)
    unittest_only: list[str] = field(default_factory=list)
    """Test files that ``unittest`` finds and pytest, by its own patterns, does not."""
    test_packages: list[str] = field(default_factory=list)
    """Those of the test paths that are packages."""
    style: Literal["pytest", "unittest"] = "pytest"
    doctests: list[str] = field(default_factory=list)
    """Modules with examples in their docstrings."""
    same_names: bool = False
    """Whether two test files share a name and neither folder is a package."""
    options: list[str] = field(default_factory=list)
    """The ``addopts`` of its pytest configuration."""


@dataclass
class Survey:
    """What was found."""

    projects: list[Project]
    sources: list[str]
    """Python files and notebooks that are no tests."""
    notebooks: list[str]
    loads: list[str]
    """Files that say ``torch.load``."""
    cuda: list[str]
    """Files that use CUDA."""
    models: list[str]
    environments: list[str]
    """Virtual environments that lie in the repository and are not ignored."""
    uses_torch: bool

    @property
    def roots(self) -> list[str]:
        """Every folder that belongs on ``sys.path``, once."""
        return list(dict.fromkeys(root for p in self.projects for root in p.roots))

    @property
    def test_files(self) -> list[str]:
        """All test files."""
        return [name for project in self.projects for name in project.test_files]


def survey(repository: Repository) -> Survey:
    """Look at a repository; nothing of it is run."""
    names, environments = _own(repository)
    python = {name: _text(repository, name) for name in names if name.endswith(".py")}
    notebooks = [name for name in names if name.endswith(".ipynb")]
    projects = _projects(names)
    for project in projects:
        inside = {n: t for n, t in python.items() if _project_of(n, projects) is project}
        _describe(project, inside, configuration.read(repository, project.folder))
    tests = {n for p in projects for n in (*p.test_files, *p.unittest_only)}
    folders = {path for p in projects for path in p.test_paths}
    code = {name: text for name, text in python.items() if name not in tests}
    code |= {name: _text(repository, name) for name in notebooks}
    return Survey(
        projects=[p for p in projects if p.modules or p.test_files or p.unittest_only],
        sources=[name for name in sorted(code) if not _below(name, folders)],
        notebooks=notebooks,
        loads=[name for name, text in code.items() if "torch.load" in text],
        cuda=[n for n, t in code.items() if re.search(r"\.cuda\b|[\"']cuda\b", t)],
        models=[name for name in names if is_model(name)],
        environments=environments,
        uses_torch=any(re.search(r"\btorch\b", text) for text in python.values()),
    )


def _own(repository: Repository) -> tuple[list[str], list[str]]:
    """Return the repository's files without those of environments, and the environments."""
    files = repository.files
    environments = sorted(
        {str(PurePosixPath(n).parent) for n in files if n.endswith("/pyvenv.cfg")}
    )
    kept = [
        name
        for name in files
        if name.isprintable()
        and check_repository_path(name) is None
        and not _below(name, environments)
        and not any(part.startswith(".") for part in PurePosixPath(name).parts[:-1])
        and "node_modules" not in name.split("/")
        and not repository.leaves(name)
        and (repository.root / name).is_file()
    ]
    return kept, environments


def _text(repository: Repository, name: str) -> str:
    with suppress(OSError), (repository.root / name).open("rb") as stream:
        return stream.read(_MOST_READ).decode("utf-8", "replace")
    return ""


def _projects(names: list[str]) -> list[Project]:
    """Return the projects, the innermost first."""
    marks = ("pyproject.toml", "setup.py", "setup.cfg")
    folders = {str(PurePosixPath(n).parent) for n in names if PurePosixPath(n).name in marks}
    folders |= {"."}
    ordered = sorted(folders, key=lambda f: (-len(PurePosixPath(f).parts), f))
    return [Project(folder) for folder in ordered]


def _project_of(name: str, projects: list[Project]) -> Project:
    return next(p for p in projects if p.folder == "." or name.startswith(f"{p.folder}/"))


def _describe(project: Project, python: Mapping[str, str], config: configuration.Pytest) -> None:
    """Find a project's modules and tests."""
    project.options = config.addopts
    patterns = [*_TEST_FILES, *config.python_files]
    for name, text in sorted(python.items()):
        base = PurePosixPath(name).name
        if any(fnmatch.fnmatch(base, pattern) for pattern in patterns):
            project.test_files.append(name)
        elif fnmatch.fnmatch(base, _UNITTEST_FILES) and _TEST_CASE.search(text):
            project.unittest_only.append(name)
    tests = {*project.test_files, *project.unittest_only}
    project.test_paths = _test_paths(project, config)
    project.test_packages = [p for p in project.test_paths if f"{p}/__init__.py" in python]
    if tests and all("unittest" in python[name] and "pytest" not in python[name] for name in tests):
        project.style = "unittest"
    plain = [
        PurePosixPath(name)
        for name in project.test_files
        if f"{PurePosixPath(name).parent}/__init__.py" not in python
    ]
    project.same_names = len({path.name for path in plain}) < len(plain)
    imported = {found for name in tests for found in _IMPORTED.findall(python[name])}
    code = {n: t for n, t in python.items() if n not in tests and not _aside(n, project)}
    roots: dict[str, None] = {}
    for root, module in _modules(project, code, imported):
        roots[root] = None
        project.modules.append(module)
    project.roots = list(dict.fromkeys([*roots, *config.pythonpath, project.folder]))
    project.doctests = [
        name for name in sorted(code) if _DOCTEST.search(code[name]) and _below(name, roots)
    ]


def _test_paths(project: Project, config: configuration.Pytest) -> list[str]:
    """Return the folders with tests, and the test files that lie beside code."""
    tests = project.test_files or project.unittest_only
    if config.testpaths and all(_below(name, config.testpaths) for name in project.test_files):
        return config.testpaths
    start = len(PurePosixPath(project.folder).parts)
    paths: dict[str, None] = {}
    for name in tests:
        parts = PurePosixPath(name).parts
        at = next((i for i in range(start, len(parts) - 1) if parts[i] in _TEST_FOLDERS), None)
        paths[name if at is None else "/".join(parts[: at + 1])] = None
    return list(paths)


def _modules(
    project: Project, code: Mapping[str, str], imported: set[str]
) -> Iterator[tuple[str, Module]]:
    """Yield the outermost packages and single modules, each with its folder on ``sys.path``."""
    packages = {str(PurePosixPath(n).parent) for n in code if n.endswith("/__init__.py")}
    for folder in sorted(packages):
        if str(PurePosixPath(folder).parent) not in packages:
            root = _root(str(PurePosixPath(folder).parent), project)
            name = _dotted(folder, root)
            if all(part.isidentifier() for part in name.split(".")):
                yield root, Module(name, _all(code[f"{folder}/__init__.py"]))
    for name in sorted(code):
        file = PurePosixPath(name)
        folder = str(file.parent)
        if file.name == "__init__.py" or file.stem in _NO_MODULES or folder in packages:
            continue
        if not file.stem.isidentifier():
            continue
        root = _root(folder, project)
        dotted = _dotted(str(file.with_suffix("")), root)
        in_root = folder == root
        # A script beside the code would run when it is imported: only what tests import counts.
        offered = file.parent.name in _SOURCE_FOLDERS if in_root else "." in dotted
        if offered or dotted.split(".")[0] in imported:
            yield root, Module(dotted, _all(code[name]))


def _root(folder: str, project: Project) -> str:
    """Return the folder from which dotted names below ``folder`` are counted."""
    if folder == project.folder:
        return folder
    at = PurePosixPath(folder)
    while str(at.parent) != project.folder:
        if at.name in _SOURCE_FOLDERS or not at.name.isidentifier():
            return str(at)
        at = at.parent
    source = at.name in _SOURCE_FOLDERS or not at.name.isidentifier()
    return str(at) if source else project.folder


def _dotted(path: str, root: str) -> str:
    relative = PurePosixPath(path).relative_to(root) if root != "." else PurePosixPath(path)
    return ".".join(relative.parts)


def _aside(name: str, project: Project) -> bool:
    """Tell whether a file lies beside the code: among tests, documents or tools."""
    start = len(PurePosixPath(project.folder).parts)
    parts = PurePosixPath(name).parts[:-1]
    return any(part in _TEST_FOLDERS for part in parts) or (
        len(parts) > start and parts[start] in _ASIDE
    )


def _below(name: str, folders: Iterable[str]) -> bool:
    return any(folder in {".", name} or name.startswith(f"{folder}/") for folder in folders)


def _all(text: str) -> tuple[str, ...]:
    """Return the names in ``__all__``, where it is a list of texts."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return ()
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets
        ):
            with suppress(ValueError):
                value = ast.literal_eval(node.value)
                if isinstance(value, (list, tuple)) and all(
                    isinstance(name, str) and name.isidentifier() for name in value
                ):
                    return tuple(dict.fromkeys(value))
    return ()
