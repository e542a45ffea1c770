"""Checkers of third parties: found by entry point, held to the same face."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from samples import SCRIPTS, Sample

from tiergate import checkers

_CHECKER = '''
"""``lines``: no file is longer than so many lines."""

import msgspec
from tiergate.checkers import Observation
from tiergate.expectation import Outcomes
from tiergate.verdict import Failure


class With(msgspec.Struct, forbid_unknown_fields=True):
    most: int


def outcomes(parameters):
    return Outcomes(strict=("long",), free=("read",), default={"long": 0})


def problems(parameters):
    if parameters.most < 1:
        yield ("most",), "a file has at least one line"


def observe(parameters, context):
    repository = context.candidate.repository
    names = repository.files_under(["src"])
    lines = {n: (repository.root / n).read_text().split("\\n") for n in names}
    long = [n for n in names if len(lines[n]) > parameters.most]
    failures = tuple(Failure(id=name, outcome="long") for name in long)
    return Observation(counts={"long": len(long), "read": len(names)}, failures=failures)


def reproduce(parameters, context):
    return ["wc -l src/*"]
'''


def install(folder: Path, module: str, entry_point: str = "lines_checker") -> str:
    """Lay down a distribution, as pip would, and return its PYTHONPATH."""
    (folder / "lines_checker.py").write_text(module)
    info = folder / "lines_checker-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lines-checker\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{checkers.ENTRY_POINTS}]\nlines = {entry_point}\n")
    return f"{SCRIPTS}:{folder}"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    return folder


def criterion(**with_: object) -> dict[str, object]:
    return {"id": "short", "uses": "lines", "with": with_}


def test_checker_of_a_third_party_judges(sample: Sample, site: Path):
    path = install(site, _CHECKER)
    sample.gate(criterion(most=10))
    done = sample.run(PYTHONPATH=path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 read" in done.stdout
    sample.gate(criterion(most=2))
    done = sample.run(PYTHONPATH=path)
    assert done.returncode == 1
    (verdict,) = sample.report().verdicts
    assert verdict.evidence.observed == {"long": 1, "read": 2}
    assert verdict.evidence.failures[0].id == "src/shop/prices.py"
    assert verdict.evidence.reproduce[-1] == "wc -l src/*"


def test_its_parameters_are_checked_like_any_others(sample: Sample, site: Path):
    path = install(site, _CHECKER)
    for with_, message in (
        ({"most": 0}, "a file has at least one line"),
        ({"most": "x"}, "expected"),
        ({"mots": 3}, "did you mean 'most'?"),
    ):
        sample.gate(criterion(**with_))
        done = sample.run(PYTHONPATH=path)
        assert done.returncode == 2
        assert message in done.stderr.lower()
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("module", "entry_point", "message"),
    [
        ("raise RuntimeError('not today')", "lines_checker", "cannot be loaded: not today"),
        ("raise SystemExit(0)", "lines_checker", "cannot be loaded: 0"),
        ("x = 1", "lines_checker", "lacks With, outcomes, problems, observe, reproduce"),
        (_CHECKER, "no_such_module", "cannot be loaded: No module named 'no_such_module'"),
        (_CHECKER, "lines_checker:Absent", "cannot be loaded"),
    ],
)
def test_checker_that_is_broken_is_an_error_in_the_spec(
    sample: Sample, site: Path, module: str, entry_point: str, message: str
):
    path = install(site, module, entry_point)
    sample.gate(criterion(most=3))
    done = sample.run(PYTHONPATH=path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (sample.root / ".tiergate" / "report.json").exists()


@pytest.mark.parametrize(
    ("observe", "message"),
    [
        ("raise LookupError('lost')", "the checker lines failed: LookupError: lost"),
        ("raise SystemExit(0)", "the checker lines failed: SystemExit: 0"),
        ("return None", "the checker lines failed"),
        ("return {'long': 0}", "the checker lines failed"),
    ],
)
def test_checker_that_breaks_while_it_observes_is_an_error_verdict(
    sample: Sample, site: Path, observe: str, message: str
):
    module = _CHECKER.replace(
        "    repository = context", f"    {observe}\n    repository = context"
    )
    path = install(site, module)
    sample.gate(criterion(most=3))
    done = sample.run(PYTHONPATH=path)
    assert done.returncode == 3, done.stdout + done.stderr
    (verdict,) = sample.report().verdicts
    assert verdict.status == "error"
    assert message in verdict.summary


@pytest.mark.parametrize("part", ["outcomes", "problems"])
def test_checker_that_exits_while_the_spec_is_read_is_no_pass(
    sample: Sample, site: Path, part: str
):
    module = _CHECKER.replace(f"def {part}(parameters):", f"def {part}(parameters):\n    exit(0)")
    path = install(site, module)
    sample.gate(criterion(most=3))
    done = sample.run(PYTHONPATH=path)
    assert done.returncode == 3
    assert "internal error" in done.stderr


def test_unknown_checker_suggests_a_known_one(sample: Sample):
    sample.gate({"id": "a", "uses": "pytst", "with": {"paths": ["tests"]}})
    done = sample.run()
    assert done.returncode == 2
    assert "unknown checker 'pytst' (did you mean 'pytest'?)" in done.stderr


def test_built_in_checkers_cannot_be_replaced(sample: Sample, site: Path):
    path = install(site, _CHECKER)
    info = site / "lines_checker-1.0.dist-info" / "entry_points.txt"
    info.write_text(f"[{checkers.ENTRY_POINTS}]\npytest = lines_checker\n")
    done = sample.run("--format", "json", PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verdicts"][0]["evidence"]["observed"] == {
        "passed": 2,
        "collected": 2,
    }
