"""Makes the pictures in docs/images from real runs: `python docs/pictures.py --python PYTHON`.

A small repository is judged as it is, and with three mistakes in it. Needs chromium, and the
judge's development environment.
"""

from __future__ import annotations

import argparse
import io
import os
import pty
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.text import Text

import tiergate

IMAGES = Path(__file__).parent / "images"
TIERGATE = [sys.executable, "-m", "tiergate"]

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
        _photograph(pages, options.to)


def _commit(repository: Path, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        path = repository / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    author = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    for words in (["init", "-q"], ["add", "-A"], [*author, "commit", "-qm", message]):
        subprocess.run(["git", *words], cwd=repository, check=True)


def _judge(repository: Path, name: str) -> dict[str, Path]:
    """Judge at a terminal of 90 columns; return the pages that show it."""
    screen = _at_a_terminal(repository, [*TIERGATE, "run"])
    console = Console(record=True, width=90, file=io.StringIO(), force_terminal=True)
    console.print(Text("$ tiergate run"), Text.from_ansi(screen), sep="\n")
    pages = {kind: repository.parent / f"{kind}-{name}" for kind in ("terminal", "report")}
    pages["terminal"] = pages["terminal"].with_suffix(".svg")
    console.save_svg(str(pages["terminal"]), title="tiergate run")
    pages["report"] = pages["report"].with_suffix(".html")
    words = [*TIERGATE, "report", "--to", "html", "-o", str(pages["report"])]
    subprocess.run(words, cwd=repository, check=True)
    page = pages["report"].read_text(encoding="utf-8")
    pages["report"].write_text(_placeless(page, repository), encoding="utf-8")
    return pages


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


def _at_a_terminal(repository: Path, command: list[str]) -> str:
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(repository)
        # A dumb terminal is not drawn on while the cells are judged: what stays is what is shown.
        environment = {**os.environ, "COLUMNS": "90", "TERM": "dumb"}
        environment.pop("NO_COLOR", None)
        os.execve(command[0], command, environment)  # noqa: S606 - no shell is wanted
    seen = b""
    with suppress(OSError):  # how a terminal says that its process has ended
        while data := os.read(terminal, 65536):
            seen += data
    os.close(terminal)
    os.waitpid(process, 0)
    return _placeless(seen.decode().replace("\r\n", "\n"), repository)


def _photograph(pages: dict[str, dict[str, Path]], to: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, shown in pages.items():
            _shoot(browser, shown["terminal"], to / f"terminal-{name}.png", "light", (760, 0))
        for label, (scheme, size) in LOOKS.items():
            page = pages["failing"]["report"]
            _shoot(browser, page, to / f"report-failing-{label}.png", scheme, size)
        browser.close()


def _shoot(browser: Any, page: Path, to: Path, scheme: str, size: tuple[int, int]) -> None:
    """Photograph a page; of no height, as an image in its whole length."""
    width, height = size
    tab = browser.new_page(viewport={"width": width, "height": height or 400}, color_scheme=scheme)
    if height:
        tab.goto(page.as_uri())
    else:
        tab.goto("about:blank")
        drawing = page.read_text(encoding="utf-8")
        tab.set_content(f"<style>body{{margin:0}}svg{{width:100%;height:auto}}</style>{drawing}")
    tab.screenshot(path=to, full_page=not height)
    tab.close()


if __name__ == "__main__":
    main()
