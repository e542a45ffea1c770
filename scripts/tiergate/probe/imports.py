"""Does a module import, from this repository, and has it these names?"""

from __future__ import annotations

import importlib
import traceback
from types import ModuleType
from typing import Any

from . import sources
from .ownership import Ownership
from .records import Channel
from .text import clip

_PLACEHOLDERS = (None, Ellipsis, NotImplemented)


def run(job: dict[str, Any], channel: Channel) -> int:
    """Import ``job["module"]`` as ``from module import name`` would, name by name."""
    module_name = job["module"]
    sources.compile_own(Ownership(job["repository"]))
    try:
        module = importlib.import_module(module_name)
    except BaseException as error:  # noqa: BLE001 - whatever the import raises is the evidence
        channel.send(
            "import-failed",
            error=clip("".join(traceback.format_exception_only(type(error), error)).strip(), 2000),
            traceback=clip(traceback.format_exc(), 8000),
        )
        return 1
    spec = getattr(module, "__spec__", None)
    origin = getattr(spec, "origin", None)
    genuine = isinstance(module, ModuleType)
    channel.send("imported", module=module_name, origin=origin, genuine=genuine)
    for name in job["names"]:
        problem = _problem(module, module_name, name)
        channel.send("name", name=name, problem=problem and clip(problem, 2000))
    return 0


def _problem(module: ModuleType, module_name: str, name: str) -> str | None:
    try:
        value = getattr(module, name)
    except AttributeError:
        pass
    except BaseException as error:  # noqa: BLE001 - a module's __getattr__ may raise anything
        return f"{type(error).__name__}: {error}"
    else:
        if any(value is placeholder for placeholder in _PLACEHOLDERS):
            return f"{name!r} is {value}, which stands for what could not be had"
        return None
    try:
        importlib.import_module(module_name + "." + name)
    except BaseException as error:  # noqa: BLE001 - as above
        if isinstance(error, ModuleNotFoundError) and error.name == module_name + "." + name:
            return f"cannot import name {name!r} from {module_name!r}"
        return f"{type(error).__name__}: {error}"
    return None
