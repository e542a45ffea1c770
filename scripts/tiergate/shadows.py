"""Could a file of a repository be imported in the place of an installed module?

Looks into the folders themselves: what git ignores can be imported as well.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence

from tiergate import folders

_MODULE_SUFFIXES = (".py", ".pyc", ".so")


def any_of(root: str, pythonpath: Sequence[str], modules: Collection[str]) -> bool:
    """Tell whether a file below ``root`` could be imported under one of the top-level names.

    Only from a folder of ``pythonpath``, or from one that is no package: pytest puts such folders
    of tests in front of ``sys.path``. What is installed in an environment below the root is no
    file of the repository.
    """
    search = {os.path.normpath(os.path.join(root, path)) for path in pythonpath}  # noqa: PTH118 - thousands of them
    if any(_has(folder, *folders.entries(folder), modules) for folder in search):
        return True
    for folder, below, files in folders.walk(root):
        if not any(name.startswith("__init__.") for name in files) and _has(
            folder, below, files, modules
        ):
            return True
    return False


def _has(folder: str, below: list[str], files: list[str], modules: Collection[str]) -> bool:
    """Tell whether an import that looks into a folder finds one of the modules there."""
    if any(name.endswith(_MODULE_SUFFIXES) and name.partition(".")[0] in modules for name in files):
        return True
    packages = (os.path.join(folder, name) for name in below if name in modules)  # noqa: PTH118
    return any(
        name.startswith("__init__.") for package in packages for name in folders.entries(package)[1]
    )
