"""Does a module import, from this repository, and has it these names?"""

import importlib
import traceback

from .text import clip


def run(job, channel):
    """Import ``job["module"]`` as ``from module import name`` would, name by name."""
    module_name = job["module"]
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
    channel.send("imported", module=module_name, origin=getattr(spec, "origin", None))
    for name in job["names"]:
        problem = _problem(module, module_name, name)
        channel.send("name", name=name, problem=problem and clip(problem, 2000))
    return 0


def _problem(module, module_name, name):
    try:
        getattr(module, name)
    except AttributeError:
        pass
    except BaseException as error:  # noqa: BLE001 - a module's __getattr__ may raise anything
        return "%s: %s" % (type(error).__name__, error)
    else:
        return None
    try:
        importlib.import_module(module_name + "." + name)
    except BaseException as error:  # noqa: BLE001 - as above
        if isinstance(error, ModuleNotFoundError) and error.name == module_name + "." + name:
            return "cannot import name %r from %r" % (name, module_name)
        return "%s: %s" % (type(error).__name__, error)
    return None
