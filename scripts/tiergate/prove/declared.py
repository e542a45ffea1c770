"""``proofs:`` of a criterion: the counter-examples that a spec declares."""

# Annotations are evaluated once, here: as text, each would be compiled anew when the types are
# asked for.
from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from tiergate import expectation
from tiergate.expectation import Expectation, Outcomes
from tiergate.fields import RepositoryPath

_CHANGES = ("replace", "append", "create", "delete", "patch")


class Replacement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Text in the place of other text."""

    file: Annotated[
        RepositoryPath, Meta(description="The file to change.", examples=["src/shop/prices.py"])
    ]
    old: Annotated[
        str,
        Meta(
            min_length=1,
            description="Must occur exactly once in the file.",
            examples=["weights_only=True"],
        ),
    ]
    new: Annotated[
        str, Meta(description="What stands there instead.", examples=["weights_only=False"])
    ]


class Addition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Text at the end of a file, or a new file."""

    file: Annotated[
        RepositoryPath,
        Meta(description="The file to change or to create.", examples=["src/shop/prices.py"]),
    ]
    text: Annotated[
        str, Meta(min_length=1, description="The text.", examples=["raise RuntimeError\n"])
    ]


class ProofEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A change of the repository that must turn the criterion red; `tiergate prove` tries it."""

    name: Annotated[
        str,
        Meta(
            min_length=1,
            description="What the change breaks, in words; unique.",
            examples=["the module is gone"],
        ),
    ]
    replace: Annotated[
        Replacement | None,
        Meta(
            description="Replace text in a file.",
            examples=[
                {
                    "file": "src/shop/load.py",
                    "old": "weights_only=True",
                    "new": "weights_only=False",
                }
            ],
        ),
    ] = None
    append: Annotated[
        Addition | None,
        Meta(
            description="Append text to a file.",
            examples=[{"file": "src/shop/prices.py", "text": "raise RuntimeError\n"}],
        ),
    ] = None
    create: Annotated[
        Addition | None,
        Meta(
            description="Create a file that is not there.",
            examples=[{"file": "tests/test_new.py", "text": "import no_such_module\n"}],
        ),
    ] = None
    delete: Annotated[
        RepositoryPath | None, Meta(description="Delete a file.", examples=["src/shop/prices.py"])
    ] = None
    patch: Annotated[
        RepositoryPath | None,
        Meta(
            description="Apply a patch file of the repository, as `git diff` writes it.",
            examples=["tests/proofs/break_prices.patch"],
        ),
    ] = None
    expect: Annotated[
        dict[str, int | str] | None,
        Meta(
            description="The outcomes that must be observed then, as in the criterion's `expect`: "
            "what is not named must be zero.",
            examples=[{"passed": 8, "failed": 3}],
        ),
    ] = None
    status: Annotated[
        Literal["fail", "error"],
        Meta(description="The verdict that it must lead to.", examples=["error"]),
    ] = "fail"
    evidence: Annotated[
        str,
        Meta(
            description="Text that the verdict's evidence must contain, a test id perhaps.",
            examples=["tests/test_prices.py::test_total"],
        ),
    ] = ""


def problems(entry: ProofEntry, outcomes: Outcomes) -> Iterator[tuple[str, str]]:
    """Say what is wrong with a declared counter-example, as (key, message) pairs."""
    given = [name for name in _CHANGES if getattr(entry, name) is not None]
    if len(given) != 1:
        found = f"not {' and '.join(given)}" if given else "none is given"
        yield (given[1] if given else "name", f"say one of {', '.join(_CHANGES)}; {found}")
    if entry.replace is not None and entry.replace.old == entry.replace.new:
        yield "replace", "old and new are the same: nothing would change"
    if entry.expect is None:
        return
    if entry.status == "error":
        yield "expect", "an error has no outcomes to expect; leave 'expect' or 'status' out"
    loose = Outcomes(outcomes.strict, outcomes.free, open=outcomes.open)
    for name, message in expectation.check_names(entry.expect, loose):
        yield "expect", f"{name}: {message}"
    for name, value in entry.expect.items():
        try:
            bound = expectation.parse_bound(value)
        except ValueError as error:
            yield "expect", f"{name}: {error}"
        else:
            if bound.base:
                yield "expect", f'{name}: ">=base" says nothing about a counter-example'


def bounds(entry: ProofEntry) -> Expectation | None:
    """Return what must be observed, or None where nothing is declared."""
    if entry.expect is None:
        return None
    return {name: expectation.parse_bound(value) for name, value in entry.expect.items()}
