"""Metric values as plain Python numbers."""

from typing import Any


def as_number(name: str, value: Any) -> int | float:
    """Turn a number, or a tensor or array of one element, into a Python number.

    Args:
        name: The metric, for the error message.
        value: Its value.

    Returns:
        An int, float or bool.

    Raises:
        TypeError: It is nothing of the kind.
    """
    if type(value) in (float, int):
        # Nearly always, and on training's own time.
        plain: int | float = value
        return plain
    try:
        number = value.item() if callable(getattr(value, "item", None)) else value
    except (RuntimeError, ValueError) as error:
        raise TypeError(f"metric {name!r} must be one number: {error}") from error
    if not isinstance(number, (int, float)):
        raise TypeError(f"metric {name!r} must be a number, got {type(value).__name__}")
    return number
