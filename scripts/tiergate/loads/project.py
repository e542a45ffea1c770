"""The files of a repository together: what modules pass on to each other."""

from __future__ import annotations

import ast
import posixpath
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import PurePosixPath

from tiergate.loads import relevance
from tiergate.loads.calls import Policy
from tiergate.loads.findings import Finding
from tiergate.loads.interpreter import Interpreter, Result
from tiergate.loads.values import NOTHING, Symbol, Values, passes_torch_on, symbol

_ROUNDS = 10
_DEEPEST = 6
_WORD = re.compile(rb"\w+")


@dataclass
class Analysis:
    """What came of all files."""

    results: dict[str, Result] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    """Files that this interpreter's parser does not take, and why."""


class Project:
    """Analyses the files that may load; others only as far as something is imported from them.

    Args:
        sources: the text of every Python file by its path.
        policy: whether an omitted ``weights_only`` can be safe.
    """

    def __init__(self, sources: Mapping[str, bytes], policy: Policy) -> None:
        self._sources = sources
        self._policy: Policy = policy
        self._analysis = Analysis()
        self._asked: dict[str, dict[str, Values | None]] = {}
        """What a file wanted to know of other modules, and the answers."""
        self._passed: dict[str, dict[str, list[tuple[int, str, str]]]] = {}
        self._modules: dict[str, list[tuple[tuple[str, ...], str]]] = {}
        for path in sources:
            parts = module_parts(path)
            if parts:
                self._modules.setdefault(parts[-1], []).append((parts, path))

    def analyse(self, wanted: Iterable[str]) -> Analysis:
        """Analyse each of the wanted files that may name ``torch.load``."""
        wanted = list(wanted)
        renamed = relevance.other_names_of_torch(self._sources.values())
        waiting = [
            path
            for path in (*wanted, *self._imported_by(wanted))
            if relevance.may_load(self._sources[path])
            or (
                renamed is not None
                and b"load" in self._sources[path]
                and renamed.search(self._sources[path])
            )
        ]
        for _ in range(_ROUNDS):
            for path in waiting:
                self._analyse(path)
            waiting = [*self._outdated(), *self._reached(wanted)]
            if not waiting:
                break
        else:
            for path in waiting:
                self._analysis.unreadable[path] = f"{path}: too involved to follow through modules"
        judged = set(wanted)
        results = {p: r for p, r in self._analysis.results.items() if p in judged}
        for path, result in results.items():
            self._check_proofs(path, result)
        unreadable = {p: u for p, u in self._analysis.unreadable.items() if p in judged}
        return Analysis(results, unreadable)

    def _imported_by(self, wanted: Sequence[str]) -> list[str]:
        """Return the other files that the wanted ones may import.

        All of the dotted name by which a module is reached stands in them, and its first word
        where something is imported or in quotes; only what is relative leaves out the folders
        above.
        """
        judged = set(wanted)
        others = [path for path in self._sources if path not in judged]
        if not others:
            return []
        text = b"\n".join(self._sources[path] for path in wanted)
        words = {word.decode() for word in set(_WORD.findall(text))}
        first = {word.decode("utf-8", "replace") for word in relevance.imported_words(text)}
        within = {_folder(path) for path in wanted}
        within |= {folder[:depth] for folder in within for depth in range(len(folder))}

        def may_be_imported(path: str) -> bool:
            parts = module_parts(path) or ("",)
            for at in range(len(parts) - 1, -1, -1):
                part = parts[at]
                # What is no ASCII, patterns of bytes take for the end of a word.
                if part not in words if part.isascii() else part.encode() not in text:
                    return False
                if part in first or not part.isascii() or parts[:at] in within:
                    return True
            return False

        return [path for path in others if may_be_imported(path)]

    def _analyse(self, path: str) -> None:
        asked = self._asked[path] = {}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = compile(
                    self._sources[path],
                    path,
                    "exec",
                    ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
                    dont_inherit=True,
                )
            assert isinstance(tree, ast.Module)

            def lookup(dotted: str) -> Values | None:
                if dotted not in asked:
                    asked[dotted] = self._lookup(dotted, path)
                return asked[dotted]

            def star(module: str) -> dict[str, Values]:
                found = self._star(module, path)
                asked[f"{module}.*"] = frozenset().union(*found.values())
                return found

            interpreter = Interpreter(
                tree,
                self._sources[path],
                lookup,
                star,
                lambda level, name: _absolute(path, level, name),
                self._policy,
            )
            self._analysis.results[path] = interpreter.run()
        except SyntaxError as error:
            self._analysis.unreadable[path] = f"{path}:{error.lineno or 1}: {error.msg}"
        except (ValueError, RecursionError, MemoryError) as error:
            what = "nested too deeply" if isinstance(error, RecursionError) else str(error)
            self._analysis.unreadable[path] = f"{path}: {type(error).__name__}: {what}"

    def _outdated(self) -> list[str]:
        """Return the files that would now get another answer to something that they asked."""
        return [
            path
            for path, asked in self._asked.items()
            if path in self._analysis.results
            and any(self._answer(dotted, path) != answer for dotted, answer in asked.items())
        ]

    def _answer(self, dotted: str, importer: str) -> Values | None:
        if dotted.endswith(".*"):
            return frozenset().union(*self._star(dotted[:-2], importer).values())
        return self._lookup(dotted, importer)

    def _reached(self, wanted: Iterable[str]) -> list[str]:
        """Return the other files that have a name under which a module passes on what loads."""
        passed: dict[str, frozenset[str]] = {}
        for path, result in self._analysis.results.items():
            module = (module_parts(path) or ("",))[-1]
            passed[module] = passed.get(module, frozenset()) | {
                name
                for name, values in result.exports.items()
                if any(not isinstance(v, Symbol) or v.dotted.endswith("load") for v in values)
            }
        return [
            path
            for path in wanted
            if path not in self._asked
            and any(
                relevance.may_import(self._sources[path], module, names)
                for module, names in passed.items()
                if names
            )
        ]

    def _files(self, parts: tuple[str, ...], importer: str) -> list[str]:
        """Return the files that may be imported as this module, wherever the path begins.

        Those in the importer's own folder or above it come before all others.
        """
        found = self._modules.get(parts[-1], ()) if parts else ()
        around = _folder(importer)
        near = [
            path
            for own, path in found
            if own[-len(parts) :] == parts and own[: -len(parts)] == around[: len(own) - len(parts)]
        ]
        return near or [path for own, path in found if own[-len(parts) :] == parts]

    def _star(self, module: str, importer: str) -> dict[str, Values]:
        found: dict[str, Values] = {}
        for path in self._files(tuple(module.split(".")), importer):
            result = self._analysis.results.get(path)
            for name, values in result.exports.items() if result else ():
                if not name.startswith("_") or b"__all__" in self._sources[path]:
                    found[name] = found.get(name, NOTHING) | values
        return found

    def _lookup(self, dotted: str, importer: str, depth: int = 0) -> Values | None:
        """Return what a name of one of the repository's modules is, where it matters."""
        parts = tuple(dotted.split("."))
        for length in range(len(parts) - 1, 0, -1):
            files = self._files(parts[:length], importer)
            if not files:
                continue
            values = NOTHING
            for path in files:
                values |= self._exported(path, parts[length], depth)
            if not values:
                break
            rest = parts[length + 1 :]
            if not rest:
                return values
            symbols = [v.dotted for v in values if isinstance(v, Symbol)]
            return NOTHING.union(*(symbol(".".join((s, *rest))) for s in symbols)) or None
        if passes_torch_on(dotted) and self._files(parts, importer):
            above = (self._sources[path] for path in self._files(parts[:-1], importer))
            if not any(map(relevance.may_bind_torch, above)):
                return frozenset({Symbol(dotted)})  # a module of the repository that is called so
        return None

    def _exported(self, path: str, name: str, depth: int) -> Values:
        result = self._analysis.results.get(path)
        if result is not None:
            return result.exports.get(name, NOTHING)
        # It does not load; all that it can do is pass something on.
        found = NOTHING
        if depth < _DEEPEST:
            if path not in self._passed:
                self._passed[path] = relevance.passed_on(self._sources[path])
            passed = self._passed[path]
            stars = [(level, module, name) for level, module, _ in passed.get("*", ())]
            for level, module, imported in [*passed.get(name, ()), *stars]:
                dotted = _absolute(path, level, module) if level else module
                whole = f"{dotted}.{imported}" if imported else dotted
                if whole.removesuffix(".load") in {"torch", "torch.serialization"}:
                    found |= symbol(whole)
                else:
                    found |= self._lookup(whole, path, depth + 1) or NOTHING
        return found

    def _check_proofs(self, path: str, result: Result) -> None:
        """Take back what another file may make untrue."""
        own = self._sources[path]
        module = (module_parts(path) or ("",))[-1]
        for proof in result.proofs:
            indirect = proof.kind != "reached" and relevance.rebinds_own_names(own)
            changed = relevance.may_rebind if proof.kind == "constant" else relevance.may_change
            by = next(
                (
                    other
                    for other, source in self._sources.items()
                    if proof.kind != "own" and other != path and changed(source, module, proof.name)
                ),
                None,
            )
            if indirect or by is not None:
                result.safe -= {proof.origin}
                where = by or "this file, by way of its namespace"
                result.findings.append(
                    Finding(
                        proof.origin,
                        "unproven",
                        f"it depends on {proof.name!r}, which may be changed by {where}; the "
                        "literal True at the call proves it",
                    )
                )


@cache
def module_parts(path: str) -> tuple[str, ...]:
    """Return the dotted name's parts of a file, from the repository's root."""
    parts = tuple(posixpath.splitext(path)[0].split("/"))
    return parts[:-1] if parts[-1] == "__init__" else parts


@cache
def _folder(path: str) -> tuple[str, ...]:
    return PurePosixPath(path).parent.parts


def _absolute(path: str, level: int, name: str) -> str:
    folder = _folder(path)
    kept = folder[: len(folder) - (level - 1)] if level > 1 else folder
    return ".".join((*kept, *(part for part in name.split(".") if part)))
