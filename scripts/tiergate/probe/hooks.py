"""Looks at the calls of some hooks of a plugin manager, before any implementation is called."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Look = Callable[[Any, Any], object]
"""Is given a hook's implementations, and what they are called with."""

_PARAMETERS = 4


def monitor(manager: Any, looks: Mapping[str, Look]) -> None:
    """Call a look of its own at each call of the hooks that ``looks`` names.

    Most calls are of other hooks. Pluggy's own way to see calls costs several times as much as
    to call those; it is taken where this pluggy has another way to call hooks than is known.
    """
    execute = getattr(manager, "_inner_hookexec", None)
    if not callable(execute) or len(inspect.signature(execute).parameters) != _PARAMETERS:

        def before(name: str, implementations: Sequence[Any], values: Mapping[str, Any]) -> None:
            if name in looks:
                looks[name](implementations, values)

        manager.add_hookcall_monitoring(before, lambda *_: None)
        return
    find = looks.get

    def watched(
        name: str, implementations: Sequence[Any], values: Mapping[str, Any], firstresult: bool
    ) -> Any:
        look = find(name)
        if look is not None:
            look(implementations, values)
        return execute(name, implementations, values, firstresult)

    manager._inner_hookexec = watched  # noqa: SLF001 - pluggy has no public way
