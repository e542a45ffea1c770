"""The documentation builds, its links lead somewhere, and its examples are what really happens."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec
import pytest
from builders import ROOT
from samples import PASSES, Sample

from tiergate import expectation
from tiergate.cli import COMMANDS

_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
_HREF = re.compile(r'(?:href|src)="([^"#]*)(?:#([^"]*))?"')


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built from a copy: pages on the API are written among the sources."""
    root = tmp_path_factory.mktemp("site")
    left_out = shutil.ignore_patterns("__pycache__", "api")
    for entry in ROOT.iterdir():
        if entry.name in {"docs", "src"}:
            shutil.copytree(entry, root / entry.name, ignore=left_out)
        elif entry.name != ".git":
            (root / entry.name).symlink_to(entry)  # what pages link to
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "docs", "html"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return root / "html"


def test_it_builds_without_a_warning_and_every_link_leads_somewhere(site):
    pages = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    ids = {path: set(re.findall(r'\bid="([^"]+)"', text)) for path, text in pages.items()}
    broken = []
    for path, text in pages.items():
        for target, anchor in _HREF.findall(text):
            if urlsplit(target).scheme or target.startswith("//"):
                continue
            file = (path.parent / unquote(target.partition("?")[0])).resolve() if target else path
            if not file.exists() or (anchor and file in ids and unquote(anchor) not in ids[file]):
                broken.append(f"{path.relative_to(site)}: {target}#{anchor}")
    assert len(pages) > 40
    assert broken == []


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("commands.html", [f'id="{name}"' for name in COMMANDS]),
        ("spec.html", ["pass-env", "Parameters of checkpoints", "Outcome → exact number"]),
        ("benchmarks.html", ["Optimizer", "torch 2.13.0"]),
        ("api/cross_phase/mugrokfast/optimizer/index.html", ["MuonGrokfast", "muon_lr"]),
    ],
)
def test_what_is_made_from_the_code_is_there(page, words, site):
    text = (site / page).read_text(encoding="utf-8")
    assert [word for word in words if word not in text] == []


def test_the_examples_of_the_checkers_are_from_real_runs(light_python, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import make_checkers

    assert make_checkers.PAGE.read_text(encoding="utf-8") == make_checkers.page(light_python), (
        "docs/checkers.md is out of date: python docs/make_checkers.py --python PATH"
    )


def test_the_pictures_show_what_the_tool_shows_now(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import pictures

    made = json.loads((pictures.IMAGES / pictures.RUNS).read_text(encoding="utf-8"))
    assert {name: pictures.digests(run) for name, run in made["runs"].items()} == made["shown"], (
        "docs/images is out of date: python docs/pictures.py --python PATH"
    )


def test_the_picture_of_a_live_table_is_one_state_of_it(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import pictures
    from rich.console import Console

    from tiergate.render.live import LiveTable

    drawn = io.StringIO()
    console = Console(file=drawn, width=90, height=24, force_terminal=True, color_system=None)
    with LiveTable(["a@cpu", "b@cpu"], console) as table:
        table.started("a@cpu")
        table.expected("a@cpu", 4)
        for test in ("one", "two", "three"):
            table.progress("a@cpu", f"t.py::{test}")
    lines = pictures.frame_with(drawn.getvalue(), "3/4 ").split("\n")
    assert [line.split()[:3] for line in lines if line.strip()] == [
        ["→", "runs", "a@cpu"],
        ["·", "waits", "b@cpu"],
        ["0", "of", "2"],
    ]
    with pytest.raises(ValueError, match="never showed '9/4 '"):
        pictures.frame_with(drawn.getvalue(), "9/4 ")


def test_the_checker_that_the_guide_shows_works(sample: Sample, tmp_path, monkeypatch):
    guide = (ROOT / "docs" / "writing-a-checker.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    (tmp_path / "shown_checker.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    import shown_checker as shown

    sample.write("src/shop/more.py", "# XXX and XXX\n")
    context = sample.context(PASSES)
    parameters = msgspec.convert({"word": "XXX", "paths": ["src"]}, shown.With)
    assert list(shown.problems(parameters)) == []
    seen = shown.observe(parameters, context)
    assert expectation.mismatches({}, seen.counts, shown.outcomes(parameters)) != []
    assert seen.counts == {"found": 2}
    (line,) = shown.reproduce(parameters, context)
    assert "src/shop/more.py:1:# XXX and XXX" in sample.shell(line).stdout
    nowhere = msgspec.convert({"word": "XXX", "paths": ["none"]}, shown.With)
    assert shown.observe(nowhere, context).error == "no file at these paths"


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_the_links_of_a_page_outside_the_site_lead_somewhere(name):
    for groups in _LINK.findall((ROOT / name).read_text(encoding="utf-8")):
        target = next(filter(None, groups))
        if not urlsplit(target).scheme:
            assert (ROOT / target.partition("#")[0]).exists(), target


def test_the_readme_says_of_the_attacks_what_the_table_says():
    table = (ROOT / "docs" / "attacks.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) attacks, ([\w -]+) \| (\d+) \| (\d+) \|", table, re.MULTILINE)
    green = {name: (int(green), int(total)) for total, name, _, green in rows}
    assert green["the gate"][0] == 0
    for name in ("shell script", "pre-commit"):
        assert 0.7 <= green[name][0] / green[name][1] <= 0.8
    assert "About three\nin four leave an ordinary pipeline" in (ROOT / "README.md").read_text()
