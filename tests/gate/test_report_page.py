"""The HTML report in a real browser: opened once, read in every way."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from builders import SOURCE, TWO_LEGS, hostile, judged, parse, report

from tiergate.decide import decide
from tiergate.history import CellRecord, RunRecord
from tiergate.render.formats import Rendering
from tiergate.render.trend import RUNS, trends
from tiergate.verdict import Case, Evidence, Excerpt, Failure

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        message = f"none of {', '.join(BROWSERS)} is on PATH: the HTML report is not looked at"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield running
        running.close()


def page_of(*, tests: int, folder: Path, red: bool = True) -> str:
    from tiergate.render import html

    cases = [Case(f"tests/test_a.py::test_{n}", "passed", n / 1000) for n in range(tests - 1)]
    cases.append(Case("tests/test_a.py::test_bad", "failed" if red else "passed", 0.5))
    failure = Failure(
        "tests/test_a.py::test_bad", "failed", "assert 1 == 2", "trace", "tests/test_a.py", 7,
        Excerpt(6, ["def test_bad():", "    assert 1 == 2" + "x" * 300]),
    )  # fmt: skip
    evidence = Evidence(
        expected={"passed": str(tests)}, observed={"passed": tests - 1, "failed": 1},
        failures=[failure] if red else [], cases=cases, reproduce=["python -m pytest " + "a" * 200],
    )  # fmt: skip
    spec = parse(TWO_LEGS)
    first = judged(
        "A", status="fail" if red else "pass", summary="1 failed", seconds=3.0,
        evidence=evidence, remedy=spec.criterion("A").remedy,
    )  # fmt: skip
    second = judged("B", status="blocked" if red else "pass", seconds=1.0, started=3.0, slot=1)
    leg = report(spec, verdicts=[first, second])
    cuda = msgspec.structs.replace(hostile("<b onclick=alert(1)>" + "z" * 500), device="cuda")
    other = report(spec, "cuda", verdicts=[cuda]) if red else report(spec, "cuda")
    made = Rendering(decide(spec, [leg, other], source=SOURCE), (leg, other), earlier_runs(30))
    path = folder / f"report-{tests}-{red}.html"
    path.write_text(html.render(made), encoding="utf-8")
    return path.as_uri()


def earlier_runs(number: int) -> tuple[RunRecord, ...]:
    """Runs of A on the CPU, the second of which failed, and what a shard saw."""
    runs = [
        RunRecord(
            1, f"2026-11-{n:02}T10:00:00", "cpu", f"{n:040}", "",
            {"A@cpu": CellRecord("fail" if n == 2 else "pass", float(n))},
        )
        for n in range(1, number + 1)
    ]  # fmt: skip
    part = msgspec.structs.replace(runs[-1], shard="1/2", cells={"A@cpu": CellRecord("part", 99.0)})
    return (*runs, part)


@pytest.fixture
def watched(browser: Any) -> Iterator[Any]:
    """A tab; that it asked for nothing and complained of nothing is checked at the end."""
    said: list[str] = []
    tab = browser.new_page(viewport={"width": 1000, "height": 800})
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: said.append(request.url) if not own(request.url) else None)
    yield tab
    tab.close()
    assert said == []


def own(url: str) -> bool:
    return url.startswith(("file:///", "data:,"))


@pytest.mark.parametrize("red", [True, False], ids=["failed", "passed"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(watched: Any, tmp_path: Path, scheme: str, red: bool):
    from axe_playwright_python.sync_playwright import Axe

    watched.emulate_media(color_scheme=scheme)
    watched.goto(page_of(tests=5, folder=tmp_path, red=red))
    found = Axe().run(watched)
    assert found.violations_count == 0, found.generate_report()


def test_a_phone_scrolls_in_one_direction_only(watched: Any, tmp_path: Path):
    watched.set_viewport_size({"width": 390, "height": 800})
    watched.goto(page_of(tests=5, folder=tmp_path))
    assert watched.evaluate("document.documentElement.scrollWidth") <= 390


def test_what_is_wrong_stands_first(watched: Any, tmp_path: Path):
    watched.goto(page_of(tests=5, folder=tmp_path))
    assert watched.inner_text("h1") == "TIER 0 GATE FAILED — fix before proceeding"
    watched.click("header a[href='#cell-1']")
    first = watched.inner_text("#cell-1")
    for said in ("A@cpu", "assert 1 == 2", "tests/test_a.py:7", "python -m pytest", "look at a"):
        assert said in first
    assert watched.inner_text("#cell-1 .hit").split() == ["7", "assert", "1", "==", "2" + "x" * 300]
    assert watched.locator("b").count() == 0


def test_a_trend_of_the_recorded_runs_is_shown_as_bars_and_in_words():
    spec = parse(TWO_LEGS)
    legs = (report(spec),)
    decided = decide(spec, legs, devices=["cpu"], source=SOURCE)
    (row,) = trends(Rendering(decided, legs, earlier_runs(3)))
    assert row["words"] == "2 pass, 1 fail; the latest pass"
    assert (row["cell"], row["latest"], row["longest"]) == ("A@cpu", "3.0", "3.0")
    assert [(bar["tone"], bar["height"]) for bar in row["bars"]] == [
        ("pass", 10.0),
        ("red", 20.0),
        ("pass", 30.0),
    ]
    assert row["bars"][1]["title"] == "2026-11-02 10:00 000000000000: fail, 2.0 s"
    (long,) = trends(Rendering(decided, legs, earlier_runs(30)))
    assert long["bars"][-1]["title"].startswith("2026-11-30")
    assert len(long["bars"]) == RUNS
    assert trends(Rendering(decided, legs)) == []


def test_ten_thousand_tests_open_as_a_few_rows_and_all_can_be_found(watched: Any, tmp_path: Path):
    watched.goto(page_of(tests=10_000, folder=tmp_path))
    rows = watched.locator("#tests-body tr")
    assert rows.count() == 100
    assert watched.inner_text("#tests-body tr:first-child td:nth-child(2)").endswith("test_bad")
    assert watched.evaluate("document.querySelectorAll('*').length") < 2000
    watched.click("#tests-more")
    assert rows.count() == 200
    watched.fill("#tests-search", "TEST_4242 a@cpu")
    assert rows.count() == 1
    assert watched.inner_text("#tests-count") == "1 of 10000 tests"
    watched.fill("#tests-search", "")
    watched.select_option("#tests-outcome", "failed")
    assert rows.count() == 1


def test_the_keyboard_reaches_the_decision_the_failures_and_the_search(
    watched: Any, tmp_path: Path
):
    watched.goto(page_of(tests=5, folder=tmp_path))
    reached = []
    for _ in range(40):
        watched.keyboard.press("Tab")
        reached.append(watched.evaluate("document.activeElement.outerHTML.slice(0, 60)"))
    for part in ('class="skip"', 'href="#cell-1"', "<summary>", 'id="tests-search"'):
        assert any(part in element for element in reached), part


def test_the_page_runs_no_script_but_its_own(browser: Any, tmp_path: Path):
    tab = browser.new_page()
    tab.goto(page_of(tests=5, folder=tmp_path))
    said = tab.evaluate(
        """() => new Promise(done => {
          document.addEventListener("securitypolicyviolation", e => done(e.effectiveDirective));
          const script = document.createElement("script");
          script.textContent = "window.ran = true";
          document.body.appendChild(script);
          setTimeout(() => done("nothing"), 2000);
        })"""
    )
    assert said == "script-src-elem"
    assert tab.evaluate("window.ran") is None
    tab.close()
