"""``tiergate fix``: the argument is added, formatting is kept, and nothing else is touched."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import Sample

from tiergate.loads import mending

LOADS = {
    "id": "loads",
    "uses": "semgrep",
    "with": {"rules": ["unsafe-torch-load"], "paths": ["src"]},
}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("torch.load(p)", "torch.load(p, weights_only=True)"),
        ("torch.load(p, )", "torch.load(p, weights_only=True, )"),
        ("torch.load(p,)", "torch.load(p, weights_only=True,)"),
        ("torch.load((p))", "torch.load((p), weights_only=True)"),
        (
            "torch.load(p, map_location='cpu')",
            "torch.load(p, map_location='cpu', weights_only=True)",
        ),
        ("torch.load(\n    p,\n)", "torch.load(\n    p,\n    weights_only=True,\n)"),
        ("torch.load(\n    p\n)", "torch.load(\n    p,\n    weights_only=True\n)"),
        (
            "torch.load(\n    p,  # the file\n    # and no more\n)",
            "torch.load(\n    p,  # the file\n    weights_only=True,\n    # and no more\n)",
        ),
        ("torch.load(\r\n    p,\r\n)", "torch.load(\r\n    p,\r\n    weights_only=True,\r\n)"),
        ("torch.load(p)['x']", "torch.load(p, weights_only=True)['x']"),
        ("torch.load(open(p, 'rb'))", "torch.load(open(p, 'rb'), weights_only=True)"),
        ("torch.load(p,\n           'cpu')", "torch.load(p,\n           'cpu', weights_only=True)"),
        ("torch.load('ü')", "torch.load('ü', weights_only=True)"),
        ("torch.load('a)b,(')", "torch.load('a)b,(', weights_only=True)"),
        ("torch.load(p  # (\n)", "torch.load(p, weights_only=True  # (\n)"),
    ],
)
def test_argument_is_added_and_formatting_kept(before: str, after: str):
    source, done = mending.mend(before.encode(), [(1, 1)])
    assert source.decode() == after
    assert done == [(1, 1)]


def test_places_are_columns_in_characters_and_several_stand_on_a_line():
    text = "ü = 'ü'; a = torch.load(p), torch.load(q)\n"
    source, done = mending.mend(text.encode(), [(1, 14), (1, 29)])
    assert source.decode() == (
        "ü = 'ü'; a = torch.load(p, weights_only=True), torch.load(q, weights_only=True)\n"
    )
    assert len(done) == 2


@pytest.mark.parametrize("text", ["x = 1\n", "torch.load(\n", "torch.load\n"])
def test_what_is_no_such_call_is_left_alone(text: str):
    assert mending.mend(text.encode(), [(1, 1)]) == (text.encode(), [])


_ARGUMENT = st.sampled_from(
    ["p", "'a,b'", "(p)", "f(x, y)", "[1, 2]", "lambda: 0", "*a", "k=1", "**d"]
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(_ARGUMENT, min_size=1, max_size=4),
    st.sampled_from([", ", ",\n    ", ",  # why\n    "]),
    st.sampled_from(["", ",", ",\n", "\n", "  # end\n", ",  # end\n"]),
)
def test_result_is_the_same_call_with_one_argument_more(arguments, separator, end):
    order = {"*": 1, "k": 2, "l": 0}
    arguments = sorted(
        set(arguments), key=lambda a: 3 if a.startswith("**") else order.get(a[0], 0)
    )
    text = f"x = torch.load({separator.join(arguments)}{end})\n"
    source, done = mending.mend(text.encode(), [(1, 5)])
    assert done == [(1, 5)]
    (call,) = [
        n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call) and n.col_offset == 4
    ][:1]
    assert isinstance(call, ast.Call)
    assert call.keywords[-1].arg == "weights_only"
    for comment in ("# why", "# end"):
        assert source.decode().count(comment) == text.count(comment)


@pytest.fixture
def unsafe(sample: Sample) -> Sample:
    sample.write(
        "src/shop/model.py",
        "import torch\n\nfirst = torch.load('m')\nsecond = torch.load('m', weights_only=False)\n",
    )
    sample.gate(LOADS)
    return sample


def test_without_apply_the_changes_are_shown_and_nothing_is_written(unsafe: Sample):
    before = (unsafe.root / "src/shop/model.py").read_text()
    done = unsafe.tiergate("fix", "loads")
    assert done.returncode == 1, done.stderr
    assert "+first = torch.load('m', weights_only=True)" in done.stdout
    assert "src/shop/model.py:4:10: left to you: weights_only is False" in done.stderr
    assert "1 call can be mended; --apply writes them; 1 left to you" in done.stderr
    assert (unsafe.root / "src/shop/model.py").read_text() == before


def test_the_page_shows_a_real_run(sample: Sample):
    page = (Path(__file__).parents[2] / "docs/fix.md").read_text(encoding="utf-8")
    source, patch, said = re.findall(r"```(?:python|diff|text)\n(.*?)```\n", page, re.DOTALL)
    sample.write("src/shop/load.py", source)
    sample.gate(LOADS)
    done = sample.tiergate("fix", "loads")
    assert (done.returncode, done.stdout, done.stderr) == (1, patch, said)


def test_apply_writes_only_what_is_safe_and_keeps_the_mode(unsafe: Sample):
    path = unsafe.root / "src/shop/model.py"
    path.chmod(0o755)
    done = unsafe.tiergate("fix", "loads", "--apply")
    assert done.returncode == 1
    assert path.read_text().splitlines()[2:] == [
        "first = torch.load('m', weights_only=True)",
        "second = torch.load('m', weights_only=False)",
    ]
    assert path.stat().st_mode & 0o777 == 0o755
    findings = unsafe.verdict(LOADS).evidence.findings
    assert [finding.line for finding in findings] == [4]


def test_after_mending_all_the_command_says_so_and_the_criterion_passes(sample: Sample):
    sample.write("src/shop/model.py", "import torch\n\nfirst = torch.load('m')\n")
    sample.gate(LOADS)
    done = sample.tiergate("fix", "loads", "--apply")
    assert (done.returncode, done.stdout) == (0, "")
    assert "1 call mended; 0 left to you" in done.stderr
    assert sample.tiergate("fix", "loads").returncode == 0
    assert sample.verdict(LOADS).status == "pass"


def test_shown_changes_are_a_patch_that_git_applies(unsafe: Sample):
    path = unsafe.write(
        "src/shop/model.py",
        "import torch\n\nodd = '\x0c\u2028'\nfirst = torch.load('m')\n"
        "def last(): return torch.load('n')",
    )
    unsafe.commit()
    patch = unsafe.tiergate("fix", "loads").stdout
    assert "\\ No newline at end of file" in patch
    done = subprocess.run(
        ["git", "apply", "-"],
        input=patch.encode(),
        cwd=unsafe.root,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shown = path.read_bytes()
    unsafe.git("checkout", "-q", ".")
    assert unsafe.tiergate("fix", "loads", "--apply").returncode == 0
    assert path.read_bytes() == shown
    assert shown.endswith(b"return torch.load('n', weights_only=True)")


@pytest.mark.parametrize("obstacle", ["link", "changed", "no space"])
def test_file_that_must_not_be_replaced_is_left_and_the_reason_is_told(
    unsafe: Sample, monkeypatch: pytest.MonkeyPatch, obstacle: str
):
    from click.testing import CliRunner

    from tiergate.checkers import semgrep
    from tiergate.commands import fix

    path = unsafe.root / "src/shop/model.py"
    before = path.read_bytes()
    scan = semgrep.places

    def scanned(*arguments: Any) -> Any:
        found = scan(*arguments)
        if obstacle == "changed":
            path.write_bytes(before + b"# by somebody else\n")
        return found

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(semgrep, "places", scanned)
    if obstacle == "link":
        path.rename(unsafe.root / "model.txt")
        path.symlink_to(unsafe.root / "model.txt")
    elif obstacle == "no space":
        monkeypatch.setattr("tiergate.verdict.write_atomically", full)
    arguments = ["loads", "--apply", "--repo", str(unsafe.root)]
    done = CliRunner().invoke(fix.command, arguments, standalone_mode=False)
    assert done.return_value == 1, done.output
    why = {"link": "symbolic link", "changed": "was changed since", "no space": "No space left"}
    assert "left to you: weights_only" in done.output
    assert why[obstacle] in done.output
    assert "0 calls mended; 2 left to you" in done.output
    assert path.is_symlink() == (obstacle == "link")
    assert path.read_bytes().startswith(before)
    assert not [p for p in path.parent.iterdir() if p.name.startswith(".model")]


def test_other_criteria_have_no_fix(sample: Sample):
    done = sample.tiergate("fix", "prices")
    assert done.returncode == 2
    assert "nothing to mend by a program" in done.stderr
