"""Makes the pictures in docs/images from real runs: `python docs/pictures.py --python PYTHON`.

A small repository is judged as it is, and with two mistakes in it. Needs chromium, and the judge's
development environment. Beside the pictures lies what was judged, and a digest of what is shown of
it: a test says when the pictures are older than what the tool shows now.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.text import Text

import tiergate
from tiergate import spec, verdict
from tiergate.decide import decide
from tiergate.render import html
from tiergate.render.formats import Rendering
from tiergate.render.text import Text as Shown

IMAGES = Path(__file__).parent / "images"
RUNS = "runs.json"
TIERGATE = [sys.executable, "-m", "tiergate"]
COLUMNS = 90

FILES = {
    ".gitignore": ".venv\n.tiergate\n__pycache__\n",
    "gate.yaml": """\
gate: TIER 0
next: TIER 1
pythonpath: [src]
criteria:
  - id: exports
    name: shop exports its public names
    uses: imports
    with: {module: shop, names: [total, load_rates]}
  - id: prices
    name: prices are right
    uses: pytest
    with: {paths: [tests/test_prices.py]}
    expect: {passed: 4}
    remedy:
      task: "7"
      owner: dev-shop
      hint: totals are rounded once, at the end
      files: [src/shop/prices.py]
  - id: loads
    name: nothing loads a pickle without weights_only=True
    uses: semgrep
    with: {rules: [unsafe-torch-load], paths: [src]}
    remedy: {owner: dev-security, hint: write weights_only=True at the call}
  - id: suite
    name: the whole suite collects
    uses: collection
    needs: [prices]
    expect: {collected: ">=4"}
""",
    "src/shop/__init__.py": "from shop.prices import load_rates, total\n",
    "src/shop/prices.py": '''\
"""Prices."""


def total(prices, rate=0.0):
    """Return the sum with tax, rounded to cents."""
    return round(sum(prices) * (1 + rate), 2)


def load_rates(path):
    import torch

    return torch.load(path, weights_only=True)
''',
    "tests/test_prices.py": """\
import time

import pytest

from shop import total


def test_nothing_costs_nothing():
    assert total([]) == 0


@pytest.mark.parametrize("rate", [0.0, 0.19])
def test_tax_is_added(rate):
    time.sleep(0.3)
    assert total([100.0], rate) == pytest.approx(100 * (1 + rate))


def test_cents_are_rounded_once():
    assert total([0.005] * 4) == 0.02
""",
}
BROKEN = {
    "src/shop/prices.py": '''\
"""Prices."""


def total(prices, rate=0.0):
    """Return the sum with tax, rounded to cents."""
    return sum(round(price * (1 + rate), 2) for price in prices)


def load_rates(path):
    import torch

    return torch.load(path)
''',
}


LOOKS = {
    "light": ("light", (900, 1000)),
    "dark": ("dark", (900, 1000)),
    "phone": ("light", (390, 900)),
}
"""Label → colour scheme and size in pixels."""


def main() -> None:
    """Judge, show, photograph."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", required=True, help="an interpreter that has pytest")
    parser.add_argument("--to", type=Path, default=IMAGES, help="the folder of the pictures")
    options = parser.parse_args()
    options.to.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder, "shop")
        repository.mkdir()
        (repository / ".venv").symlink_to(Path(options.python).absolute().parents[1])
        _commit(repository, FILES, "Add prices")
        pages = {"passing": _judge(repository, "passing")}
        _commit(repository, BROKEN, "Round every price")
        pages["failing"] = _judge(repository, "failing")
        pages["running"] = {"terminal": _watch(repository)}
        _photograph(pages, options.to)
        runs = {name: _run(shown["run"]) for name, shown in pages.items() if "run" in shown}
    made = {"runs": runs, "shown": {name: digests(run) for name, run in runs.items()}}
    (options.to / RUNS).write_text(f"{json.dumps(made, indent=1)}\n", encoding="utf-8")


def _run(path: Path) -> dict[str, Any]:
    """Return a report without what it says of this machine that no picture shows."""
    run: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    run["environment"] = {name: run["environment"][name] for name in ("python", "torch")}
    return run


def digests(run: Mapping[str, Any]) -> dict[str, str]:
    """Return a digest of what a terminal and the page show of a report, as the tool is now."""
    report = msgspec.convert(run, verdict.Report)
    gate = spec.parse(FILES["gate.yaml"].encode(), Path("gate.yaml"))
    decided = decide(gate, [report], devices=["cpu"], source=report.source)
    shown = {
        "terminal": Shown(colour=True, width=COLUMNS, folded=True).decision(decided),
        "report": html.render(Rendering(decided, (report,))),
    }
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in shown.items()}


def _commit(repository: Path, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        path = repository / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    author = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    for words in (["init", "-q"], ["add", "-A"], [*author, "commit", "-qm", message]):
        subprocess.run(["git", *words], cwd=repository, check=True)


def _judge(repository: Path, name: str) -> dict[str, Path]:
    """Judge at a terminal; return what shows it: a drawing, a page and the report."""
    # A dumb terminal is not drawn on while the cells are judged: what stays is what is shown.
    screen = _at_a_terminal(repository, TERM="dumb")
    shown = {"terminal": _drawn(screen, repository.parent / f"terminal-{name}.svg")}
    shown["report"] = repository.parent / f"report-{name}.html"
    words = [*TIERGATE, "report", "--to", "html", "-o", str(shown["report"])]
    subprocess.run(words, cwd=repository, check=True)
    shown["run"] = repository.parent / f"run-{name}.json"
    shutil.copy(repository / ".tiergate" / verdict.REPORT_NAME, shown["run"])
    for path in (shown["report"], shown["run"]):
        path.write_text(_placeless(path.read_text(encoding="utf-8"), repository), encoding="utf-8")
    return shown


def _watch(repository: Path) -> Path:
    """Return a drawing of the terminal while the cells are judged."""
    screen = _at_a_terminal(repository, TERM="xterm-256color", TIERGATE_CACHE="0")
    frame = frame_with(screen, "3/4 ")
    return _drawn(screen.partition("\n")[0] + "\n" + frame, repository.parent / "running.svg")


def frame_with(screen: str, words: str) -> str:
    """Return the first state of a live table that shows ``words``.

    Raises:
        ValueError: none does.
    """
    # How rich goes back to the first line of what it drew before.
    for frame in re.split(r"\r?(?:\x1b\[(?:2K|1A|\?25[lh]))+", screen):
        if words in frame:
            return frame
    raise ValueError(f"the live table never showed {words!r}")


def _drawn(screen: str, to: Path) -> Path:
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text("$ tiergate run"), Text.from_ansi(screen), sep="\n")
    console.save_svg(str(to), title="tiergate run")
    return to


def _placeless(text: str, repository: Path) -> str:
    """Leave out where this machine keeps things."""
    places = {
        f"{repository}/": "",
        f"{Path(sys.executable).parent}/": "",
        f"{Path(tiergate.__file__).parent}/": "tiergate/",
    }
    for place, name in places.items():
        text = text.replace(place, name)
    return text


def _at_a_terminal(repository: Path, **variables: str) -> str:
    """Return what ``tiergate run`` writes to a terminal."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(repository)
        environment = {**os.environ, "COLUMNS": str(COLUMNS), "LINES": "24", **variables}
        environment.pop("NO_COLOR", None)
        os.execve(TIERGATE[0], [*TIERGATE, "run"], environment)  # noqa: S606 - no shell is wanted
    seen = b""
    with suppress(OSError):  # how a terminal says that its process has ended
        while data := os.read(terminal, 65536):
            seen += data
    os.close(terminal)
    os.waitpid(process, 0)
    # The places of links are no part of what is seen.
    text = re.sub(r"\x1b\]8;;.*?\x1b\\", "", seen.decode().replace("\r\n", "\n"))
    return _placeless(text, repository)


def _photograph(pages: dict[str, dict[str, Path]], to: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, shown in pages.items():
            _shoot_drawing(browser, shown["terminal"], to / f"terminal-{name}.png")
        for label, (scheme, (width, height)) in LOOKS.items():
            tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            tab.goto(pages["failing"]["report"].as_uri())
            tab.screenshot(path=to / f"report-failing-{label}.png")
            tab.close()
        browser.close()


def _shoot_drawing(browser: Any, drawing: Path, to: Path) -> None:
    """Photograph an image in its whole length, and nothing beside it."""
    tab = browser.new_page(viewport={"width": 760, "height": 400})
    image = drawing.read_text(encoding="utf-8")
    tab.set_content(f"<style>body{{margin:0}}svg{{width:100%;height:auto}}</style>{image}")
    tab.locator("svg").first.screenshot(path=to)
    tab.close()


if __name__ == "__main__":
    main()
