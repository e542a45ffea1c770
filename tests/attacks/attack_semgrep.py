"""Attacks on what semgrep finds: suppressed, hidden, unparsed, or written another way."""

from __future__ import annotations

import subprocess
from pathlib import Path

from attack_case import Attack, Control
from attack_sample import UNSAFE

UNSAFE_LINE = "    return torch.load(path)\n"
NEW = "src/shop/reading.py"
SAFE = UNSAFE.replace("(path)\n", "(path, weights_only=True)\n")
# In full-width letters, which Python reads as plain ones.
WIDE = "".join(chr(ord(letter) + 0xFEE0) for letter in "load")
ADDED = Control("a safe call in a new file", {NEW: SAFE})
COMMENTED = Control(
    "the word nosemgrep beside a safe call",
    {NEW: SAFE.replace("True)", "True)  # nosemgrep")},
)
NEIGHBOURS = Control(
    "functions that are called load",
    {NEW: "import json\n\n\ndef load(text):\n    return json.loads(text)\n\n\nload('1')\n"},
)
UNICODE = Control(
    "text and names beyond ASCII", {NEW: f'"""Prix — 価格."""\n\nprécis = "{WIDE}"\n'}
)
NOT_PYTHON = Control(
    "files that are no Python", {"src/shop/prices.csv": "1,2\n", "src/Makefile": "all:\n"}
)
MATCH = """

def match(value):
    match value:
        case {"k": v}:
            return v
"""
SHEBANG = "#!/usr/bin/env python3\n"
# The second cell is text; the first does not say what it is, and counts as code.
NOTEBOOK = (
    '{"cells": [{"source": ["torch.load(p)"]}, '
    '{"cell_type": "markdown", "source": ["`torch.load(path)`"]}]}'
)
CONSTANT = "SAFE = True\n" + UNSAFE.replace("(path)\n", "(path, weights_only=SAFE)\n")
IMPORTED = UNSAFE.replace("import torch", "import importlib").replace(
    "torch.load", 'importlib.import_module("torch").load'
)
LATER = "\n\ndef relax():\n    global SAFE\n    SAFE = False\n"


def _repository(path: Path) -> None:
    """Make the sample a git repository in which an ignored file is tracked all the same."""
    for arguments in (["init", "-q"], ["add", "-A", "-f"]):
        subprocess.run(["git", *arguments], cwd=path.parent, check=True, capture_output=True)


def _link_to_folder(path: Path) -> None:
    root = path.parents[2]
    outside = root.with_name(f"{root.name}-library")
    outside.mkdir()
    (outside / "reading.py").write_text(UNSAFE, encoding="utf-8")
    path.symlink_to(outside, target_is_directory=True)


def _sparse(path: Path) -> None:
    """Keep each file of the name out of the work tree."""
    _repository(path)
    patterns = ["/*", f"!{Path(NEW).name}"]
    arguments = ["git", "sparse-checkout", "set", "--no-cone", *patterns]
    subprocess.run(arguments, cwd=path.parent, check=True, capture_output=True)


def _link_to_file(path: Path) -> None:
    path.symlink_to("weights.py")


ATTACKS = [
    Attack("unsafe", "an unsafe call in a new file", "semgrep", {NEW: UNSAFE}, f"{NEW}:5", ADDED),
    Attack(
        "nosemgrep",
        "`# nosemgrep`",
        "semgrep",
        {NEW: UNSAFE.replace("(path)\n", "(path)  # nosemgrep: unsafe-torch-load\n")},
        f"{NEW}:5",
        COMMENTED,
    ),
    Attack(
        "semgrepignore",
        "`.semgrepignore` lists the file",
        "semgrep",
        {NEW: UNSAFE, ".semgrepignore": "src/\n"},
        f"{NEW}:5",
        Control("a `.semgrepignore`", {".semgrepignore": "src/\n"}),
    ),
    Attack(
        "default-ignores",
        "folders that semgrep ignores by itself",
        "semgrep",
        {"src/shop/vendor/tests/build/reading.py": UNSAFE},
        "src/shop/vendor/tests/build/reading.py:5",
        Control("safe code in such a folder", {"src/shop/vendor/tests/reading.py": SAFE}),
    ),
    Attack(
        "gitignored",
        "the file is tracked, and in `.gitignore`",
        "semgrep",
        {NEW: UNSAFE, ".gitignore": "reading.py\n", ".git": _repository},
        f"{NEW}:5",
        Control("a safe one", {NEW: SAFE, ".gitignore": "reading.py\n", ".git": _repository}),
    ),
    Attack(
        "sparse-checkout",
        "a sparse checkout leaves the file out, and git says that nothing is missing",
        "semgrep",
        {NEW: UNSAFE, ".git": _sparse},
        f"{NEW} is tracked, but kept out of the work tree",
        Control("a file elsewhere is left out", {"docs/reading.py": SAFE, ".git": _sparse}),
    ),
    Attack(
        "unparsed",
        "a syntax error that semgrep's parser recovers from",
        "semgrep",
        {NEW: UNSAFE.replace("def read(path)", "def read(path:")},
        f"{NEW}:4",
        ADDED,
    ),
    Attack(
        "partly-parsed",
        "valid Python that semgrep's parser gives up on",
        "semgrep",
        {
            NEW: UNSAFE + MATCH.replace("v}", "v, **rest}"),
        },
        NEW,
        Control(
            "a match statement",
            {NEW: SAFE + MATCH},
        ),
    ),
    Attack(
        "large",
        "a file of more than a megabyte",
        "semgrep",
        {NEW: UNSAFE + "# prices\n" * 120_000},
        f"{NEW}:5",
        Control("a large file without such a call", {NEW: SAFE + "# prices\n" * 120_000}),
    ),
    Attack(
        "linked-folder",
        "a link to a folder outside of the repository",
        "semgrep",
        {"src/shop/library": _link_to_folder},
        "a symbolic link that leaves the repository",
        Control("a link to a file of the repository", {"src/shop/heavy.py": _link_to_file}),
    ),
    Attack(
        "notebook",
        "the call stands in a notebook",
        "semgrep",
        {"src/shop/reading.ipynb": NOTEBOOK},
        "src/shop/reading.ipynb:1",
        Control(
            "a notebook with a safe call, and an unsafe one in its text",
            {"src/shop/reading.ipynb": NOTEBOOK.replace("p)", "p, weights_only=True)")},
        ),
    ),
    Attack(
        "no-suffix",
        "a script without a suffix",
        "semgrep",
        {"src/read": SHEBANG + UNSAFE},
        "src/read:6",
        Control("a safe script", {"src/read": SHEBANG + SAFE}),
    ),
    Attack(
        "pyw",
        "a `.pyw` file",
        "semgrep",
        {"src/shop/reading.pyw": UNSAFE},
        "src/shop/reading.pyw:5",
        NOT_PYTHON,
    ),
    Attack(
        "capital-suffix",
        "a `.PY` file",
        "semgrep",
        {"src/shop/reading.PY": UNSAFE},
        "src/shop/reading.PY:5",
        NOT_PYTHON,
    ),
    Attack(
        "alias",
        "`load = torch.load`",
        "semgrep",
        {NEW: UNSAFE.replace(UNSAFE_LINE, "    load = torch.load\n    return load(path)\n")},
        f"{NEW}:5",
        NEIGHBOURS,
    ),
    Attack(
        "getattr-load",
        '`getattr(torch, "load")`',
        "semgrep",
        {NEW: UNSAFE.replace("torch.load(path)", 'getattr(torch, "load")(path)')},
        f"{NEW}:5",
        NEIGHBOURS,
    ),
    Attack(
        "computed-name",
        '`getattr(torch, "lo" + "ad")`',
        "semgrep",
        {NEW: UNSAFE.replace("torch.load", 'getattr(torch, "lo" + "ad")')},
        f"{NEW}:5",
        Control(
            "another computed name",
            {NEW: UNSAFE.replace("torch.load(path)", 'getattr(torch, "float" + "32")')},
        ),
    ),
    Attack(
        "computed-module",
        '`importlib.import_module("torch").load`',
        "semgrep",
        {NEW: IMPORTED},
        f"{NEW}:5",
        Control("another imported module", {NEW: IMPORTED.replace('"torch"', '"json"')}),
    ),
    Attack(
        "serialization-load",
        "`torch.serialization.load`",
        "semgrep",
        {NEW: UNSAFE.replace("torch.load", "torch.serialization.load")},
        f"{NEW}:5",
        NEIGHBOURS,
    ),
    Attack(
        "keywords-unpacked",
        "`torch.load(path, **options)`",
        "semgrep",
        {NEW: UNSAFE.replace("(path)\n", "(path, **{'weights_only': False})\n")},
        f"{NEW}:5",
        ADDED,
    ),
    Attack(
        "not-literally-true",
        "`weights_only=SAFE`, which is false by then",
        "semgrep",
        {NEW: CONSTANT + LATER},
        f"{NEW}:6",
        Control("a constant that nothing makes false", {NEW: CONSTANT}),
    ),
    Attack(
        "pickle-module",
        "`weights_only=True` with a pickle module",
        "semgrep",
        {
            NEW: UNSAFE.replace(
                "(path)\n", "(path, pickle_module=__import__('pickle'), weights_only=True)\n"
            )
        },
        f"{NEW}:5",
        ADDED,
    ),
    Attack(
        "full-width",
        f"`torch.{WIDE}`, which Python reads as `load`",
        "semgrep",
        {NEW: UNSAFE.replace("torch.load", f"torch.{WIDE}")},
        "is read as 'load'",
        UNICODE,
    ),
    Attack(
        "utf-7",
        "the code stands in comments, in UTF-7",
        "semgrep",
        {NEW: b"# coding: utf-7\n#+AAo-import torch+AAo-torch.load('x')\n"},
        "declares the encoding",
        Control("a declared encoding", {NEW: "# -*- coding: utf-8 -*-\n" + SAFE}),
    ),
    Attack(
        "utf-16",
        "a file in UTF-16",
        "semgrep",
        {NEW: UNSAFE.encode("utf-16")},
        NEW,
        Control("a byte order mark", {NEW: b"\xef\xbb\xbf" + SAFE.encode()}),
    ),
    Attack(
        "folder-gone",
        "the scanned folder is moved away",
        "semgrep",
        {
            "lib/reading.py": UNSAFE,
            **dict.fromkeys(("src/shop/__init__.py", "src/shop/prices.py")),
            "src/shop/weights.py": None,
        },
        "no Python file in src",
        NOT_PYTHON,
    ),
]
