"""``semgrep``: what the rule must find is found, and no file is passed over in silence."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from samples import SCRIPTS, Sample

from tiergate.checkers import semgrep
from tiergate.scanning import dialect, engines, rules, syntax
from tiergate.spec import SpecError
from tiergate.verdict import Verdict

pytestmark = pytest.mark.usefixtures("warm")

UNSAFE = "import torch\n\ntorch.load('model.pt')\n"
SAFE = "import torch\n\ntorch.load('model.pt', weights_only=True)\n"
RULE = SCRIPTS / "tiergate" / "rules" / "unsafe-torch-load.yaml"
EXAMPLES = RULE.with_suffix(".py")


def scan(sample: Sample, *paths: str, **more: Any) -> Verdict:
    with_ = {"rules": ["unsafe-torch-load"], "paths": list(paths) or ["src"], **more}
    return sample.verdict({"id": "loads", "uses": "semgrep", "with": with_})


def places(verdict: Verdict) -> list[tuple[str, int]]:
    return sorted((finding.path, finding.line) for finding in verdict.evidence.findings)


def test_clean_code_passes_and_says_how_much_was_read(sample: Sample):
    sample.write("src/shop/model.py", SAFE)
    verdict = scan(sample)
    assert (verdict.status, verdict.summary) == ("pass", "3 scanned")
    assert any("3 files scanned by semgrep" in note for note in verdict.evidence.notes)


def test_finding_fails_with_file_line_rule_and_code(sample: Sample):
    sample.write("src/shop/model.py", UNSAFE)
    verdict = scan(sample)
    assert verdict.status == "fail"
    assert verdict.evidence.observed == {"findings": 1, "scanned": 3}
    (finding,) = verdict.evidence.findings
    assert (finding.path, finding.line, finding.column) == ("src/shop/model.py", 3, 1)
    assert finding.rule == "unsafe-torch-load"
    assert finding.code == "torch.load('model.pt')"
    assert "weights_only=True" in finding.message


def test_quoted_code_is_the_line_that_semgrep_means(sample: Sample):
    # A form feed and a line separator end no line of Python.
    sample.write("src/model.py", "import torch\n\x0c\nx = '\u2028'\ntorch.load('m')\n")
    (finding,) = scan(sample).evidence.findings
    assert (finding.line, finding.code) == (4, "torch.load('m')")


@pytest.fixture(scope="module")
def hidden(template: Sample, tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """A tree in which every file is unsafe, and each is hidden in a way of its own."""
    root = tmp_path_factory.mktemp("hidden") / "sample"
    shutil.copytree(template.root, root)
    sample = Sample(root, template.python)
    sample.write("src/suppressed.py", "import torch\ntorch.load('m')  # nosemgrep\n")
    sample.write("src/above.py", "import torch\n# nosemgrep: unsafe-torch-load\ntorch.load('m')\n")
    sample.write("src/.semgrepignore", "ignored.py\n")
    sample.write(".semgrepignore", "*.py\nsrc/\n")
    sample.write("src/ignored.py", UNSAFE)
    for folder in ("tests", "test", "vendor", "build", "dist", "node_modules", "examples"):
        sample.write(f"src/{folder}/model.py", UNSAFE)
    sample.write("src/.hidden/model.py", UNSAFE)
    sample.write("src/tracked.py", UNSAFE)
    sample.commit()
    sample.write(".gitignore", "src/tracked.py\n")
    sample.write("src/large.py", UNSAFE + "# " + "x" * 1_200_000 + "\n")
    sample.write("src/stub.pyi", UNSAFE)
    sample.write("src/window.pyw", UNSAFE)
    sample.write("src/LOUD.PY", UNSAFE)
    sample.write("src/program", "#!/usr/bin/env python3\n" + UNSAFE)
    sample.write("src/bom.py", b"\xef\xbb\xbf" + UNSAFE.encode())
    sample.write("src/windows.py", UNSAFE.replace("\n", "\r\n"))
    sample.write("src/-dash.py", UNSAFE)
    sample.write("src/sp ace ü.py", UNSAFE)
    sample.write("src/not-python.txt", UNSAFE)
    sample.write("src/shell", "#!/bin/sh\n")
    (sample.root / "src/dangling").symlink_to("nothing")
    return sample


HIDDEN = [
    ("src/-dash.py", 3),
    ("src/.hidden/model.py", 3),
    ("src/LOUD.PY", 3),
    ("src/above.py", 3),
    ("src/bom.py", 3),
    ("src/build/model.py", 3),
    ("src/dist/model.py", 3),
    ("src/examples/model.py", 3),
    ("src/ignored.py", 3),
    ("src/large.py", 3),
    ("src/node_modules/model.py", 3),
    ("src/program", 4),
    ("src/sp ace ü.py", 3),
    ("src/stub.pyi", 3),
    ("src/suppressed.py", 2),
    ("src/test/model.py", 3),
    ("src/tests/model.py", 3),
    ("src/tracked.py", 3),
    ("src/vendor/model.py", 3),
    ("src/window.pyw", 3),
    ("src/windows.py", 3),
]


def test_no_way_of_hiding_a_file_or_a_line_hides_it(hidden: Sample):
    verdict = scan(hidden)
    assert verdict.status == "fail", verdict.summary
    assert places(verdict) == HIDDEN
    assert verdict.evidence.observed["scanned"] == len(HIDDEN) + 2


def test_both_engines_agree(hidden: Sample):
    fast, default = scan(hidden), scan(hidden, engine="default")
    assert places(default) == places(fast) == HIDDEN
    assert default.evidence.observed == fast.evidence.observed
    assert [f.fingerprint for f in default.evidence.findings] == [
        f.fingerprint for f in fast.evidence.findings
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("src/broken.py", b"def broken(:\n", "src/broken.py:1: SyntaxError"),
        ("src/old.py", b"print 'x'\n", "src/old.py:1: SyntaxError"),
        ("src/odd.py", b"# coding: utf-7\n", "declares the encoding 'utf-7'"),
        ("src/latin.py", b"# coding: latin-1\nx = 1\n", "declares the encoding 'iso-8859-1'"),
        ("src/wide.py", "x = 1\n".encode("utf-16"), "src/wide.py:1: "),
        ("src/wide_name.py", "torch.\uff4c\uff4f\uff41\uff44(p)\n".encode(), "is read as 'load'"),
        ("src/notes.ipynb", b"{}", "src/notes.ipynb: not a notebook"),
        ("src/NOTES.IPYNB", b"{}", "src/NOTES.IPYNB: not a notebook"),
        ("src/fast.pyx", b"x = 1\n", "src/fast.pyx: .pyx files cannot be scanned"),
        ("src/compiled.pyc", b"\0", "src/compiled.pyc: .pyc files cannot be scanned"),
    ],
)
def test_file_that_cannot_be_analysed_is_an_error_and_named(
    sample: Sample, name: str, content: bytes, message: str
):
    sample.write(name, content)
    verdict = scan(sample)
    assert verdict.status == "error"
    assert message in verdict.summary


UNKNOWN_TO_SEMGREP = b"""\
import torch
match {}:
    case {'a': y, **rest}:
        one = torch.load('model.pt')
    case [{"b": {**inner # kept
        ,}}]:
        two = {}[*(1, torch.load('model.pt')), *[torch.load('model.pt', weights_only=True)]]
"""


def test_what_semgrep_does_not_parse_is_written_for_it_without_moving_anything(
    sample: Sample, monkeypatch
):
    sample.write("src/new.py", UNKNOWN_TO_SEMGREP)
    verdict = scan(sample)
    assert verdict.status == "fail", verdict.summary
    new = [f for f in verdict.evidence.findings if f.path == "src/new.py"]
    assert [(f.line, f.column) for f in new] == [(4, 15), (7, 23)]
    assert all("semgrep and the resolver" in f.message for f in new)
    assert len(dialect.for_semgrep(UNKNOWN_TO_SEMGREP)) == len(UNKNOWN_TO_SEMGREP)
    monkeypatch.setattr(dialect, "for_semgrep", lambda source: source)
    sample.write("src/new.py", UNKNOWN_TO_SEMGREP + b"# never scanned before\n")
    verdict = scan(sample)
    assert verdict.status == "error"
    assert "semgrep reported errors: src/new.py" in verdict.summary


def test_interpreter_that_is_not_the_judges_says_itself_what_it_does_not_compile(
    sample: Sample, tmp_path: Path, monkeypatch
):
    sample.write("src/broken.py", "return 1\n")
    sample.write("src/wide_name.py", "torch.\uff4c\uff4f\uff41\uff44(p)\n")
    monkeypatch.setattr(syntax, "is_own", lambda _: True)
    own = scan(sample)
    monkeypatch.setattr(syntax, "is_own", lambda _: False)
    others = scan(sample)
    assert own.status == others.status == "error"
    assert own.summary == others.summary
    assert "src/broken.py:1: SyntaxError: 'return' outside function" in own.summary
    assert "src/wide_name.py:1: the name" in own.summary
    assert "is read as 'load'" in own.summary


def test_interpreter_is_the_judges_where_both_are_one_program(tmp_path: Path):
    linked = tmp_path / "python"
    linked.symlink_to(sys.executable)
    assert syntax.is_own(linked)
    other = tmp_path / "other"
    shutil.copy(sys.executable, other)
    assert not syntax.is_own(other)
    assert not syntax.is_own(tmp_path / "absent")


@pytest.mark.parametrize("name", [b"src/\xff.py", b"src/a\nb.py"])
def test_name_that_is_no_text_is_an_error(sample: Sample, name: bytes):
    sample.write(os.fsdecode(name), UNSAFE)
    verdict = scan(sample)
    assert verdict.status == "error"
    assert ascii(os.fsdecode(name)) in verdict.summary


@pytest.mark.parametrize("target", ["folder", "file", "gone"])
def test_link_is_never_passed_over(sample: Sample, tmp_path: Path, target: str):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "model.py").write_text(UNSAFE)
    link = sample.root / "src/link.py"
    link.symlink_to({"folder": outside, "file": outside / "model.py"}.get(target, "none.py"))
    verdict = scan(sample)
    assert verdict.status == "error"
    assert "src/link.py" in verdict.summary
    if target != "gone":
        assert "a symbolic link that leaves the repository" in verdict.summary


def test_link_inside_the_repository_is_followed_or_refused(sample: Sample):
    sample.write("lib/model.py", UNSAFE)
    (sample.root / "src/model.py").symlink_to("../lib/model.py")
    assert scan(sample).status in {"fail", "error"}
    (sample.root / "src/model.py").unlink()
    (sample.root / "src/lib").symlink_to("../lib")
    verdict = scan(sample)
    assert verdict.status == "error"
    assert "src/lib: a nested repository, a submodule or a linked folder" in verdict.summary


def test_nested_repository_is_not_passed_over(sample: Sample):
    nested = Sample(sample.root / "src/nested", sample.python)
    nested.write("model.py", UNSAFE)
    nested.commit()
    verdict = scan(sample)
    assert verdict.status == "error"
    assert "src/nested" in verdict.summary


def test_nothing_to_scan_is_not_a_pass(sample: Sample):
    sample.write("docs/readme.md", "")
    assert scan(sample, "docs").summary == "no Python file in docs"
    assert scan(sample, "docs").status == "error"
    verdict = scan(sample, "src", "absent")
    assert (verdict.status, verdict.summary) == (
        "error",
        "files that could not be analysed: absent: does not exist",
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda rule: re.sub(r"pattern: torch\.load\n", "pattern: torch.nothing\n", rule),
        lambda rule: rule.replace("languages: [python]", "languages: [ruby]"),
        lambda rule: re.sub(r"(?s)rules:.*", "rules: []\n", rule),
        lambda rule: rule.replace(
            "    patterns:", "    paths:\n      exclude: ['*.py']\n    patterns:", 1
        ),
        lambda rule: rule.replace("severity:", "min-version: 999.0.0\n    severity:", 1),
        lambda rule: "this: is no rule\n",
        lambda rule: rule.replace("id: unsafe-torch-load", "id: unsafe-torch-lode"),
    ],
    ids=["pattern", "language", "none", "excluded", "version", "no-rule", "renamed"],
)
def test_rule_that_is_dead_is_never_a_pass(sample: Sample, tmp_path: Path, monkeypatch, change):
    copy = tmp_path / "rules"
    shutil.copytree(RULE.parent, copy)
    rule = (copy / RULE.name).read_text()
    assert change(rule) != rule
    (copy / RULE.name).write_text(change(rule))
    monkeypatch.setattr(rules, "RULES", copy)
    verdict = scan(sample)
    assert verdict.status == "error"


def test_rule_that_finds_too_much_is_told_as_well(sample: Sample, tmp_path: Path, monkeypatch):
    copy = tmp_path / "rules"
    shutil.copytree(RULE.parent, copy)
    rule = (copy / RULE.name).read_text()
    text = rule.replace(
        "- pattern: torch.load\n", "- pattern: torch.load\n          - pattern: torch.save\n"
    )
    assert text != rule
    (copy / RULE.name).write_text(text)
    monkeypatch.setattr(rules, "RULES", copy)
    verdict = scan(sample)
    assert verdict.status == "error"
    assert "rules that do not find their own examples: unsafe-torch-load" in verdict.summary


def test_every_example_of_the_rule_is_found_but_what_is_proved_safe(sample: Sample):
    source = EXAMPLES.read_text()
    shutil.copy(EXAMPLES, sample.root / "src/examples.py")
    lines = source.splitlines()
    wanted = {n + 2 for n, line in enumerate(lines) if "# ruleid: unsafe-torch-load" in line}
    spared = {n + 2 for n, line in enumerate(lines) if "# ok: unsafe-torch-load" in line}
    found = {line for _, line in places(scan(sample))}
    assert sorted(lines[number - 1] for number in wanted - found) == [
        "partial = functools.partial(torch.load, weights_only=True)",
        "torch.load(path, **options)",
        "torch.load(path, weights_only=flag)",
        "torch.serialization.load(path, weights_only=not False)",
    ]
    assert [lines[number - 1] for number in found - wanted] == ["        return f(path)"]
    assert len(wanted) > 20
    assert len(spared) > 8
    assert not found & spared


def test_where_the_fast_engine_is_missing_the_default_one_is_taken_and_said(
    sample: Sample, monkeypatch
):
    real, fast = engines.scan, engines.fast()
    asked = []

    def scan_fast(parameters: Any, files: Any, engine: Any, context: Any) -> Any:
        asked.append(engine)
        return real(parameters, files, fast, context)

    monkeypatch.setattr(engines, "fast", lambda: None)
    monkeypatch.setattr(engines, "scan", scan_fast)
    verdict = scan(sample)
    assert asked == [None]
    assert verdict.status == "pass"
    assert "the fast engine is not installed" in verdict.evidence.notes


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("", "wrote no readable results"),
        ("{}", "wrote no readable results"),
        ('{"version": "1", "results": [], "errors": [], "paths": {"scanned": []}}', "did not scan"),
        (
            (
                '{"version": "1", "results": [], "errors": '
                '[{"message": "odd", "path": "src/a.py"}], "paths": {"scanned": []}}'
            ),
            "semgrep reported errors: src/a.py: odd",
        ),
    ],
)
def test_engine_that_answers_badly_is_an_error(
    sample: Sample, tmp_path: Path, monkeypatch, output: str, message: str
):
    engine = tmp_path / "engine"
    engine.write_text(f"#!/bin/sh\ncat <<'EOF'\n{output}\nEOF\n")
    engine.chmod(0o755)
    monkeypatch.setattr(engines, "fast", lambda: engine)
    verdict = scan(sample)
    assert verdict.status == "error"
    assert message in verdict.summary


def test_persons_own_settings_do_not_change_the_verdict(
    sample: Sample, tmp_path: Path, monkeypatch
):
    monkeypatch.setenv("SEMGREP_RULES", "p/none")
    monkeypatch.setenv("SEMGREP_TIMEOUT", "0")
    sample.write("src/shop/model.py", UNSAFE)
    assert scan(sample).evidence.observed["findings"] == 1


def test_unknown_rule_suggests_the_nearest(sample: Sample):
    criterion = {
        "id": "l",
        "uses": "semgrep",
        "with": {"rules": ["unsafe-torch"], "paths": ["src"]},
    }
    with pytest.raises(
        SpecError, match=r"unknown rule 'unsafe-torch' .did you mean 'unsafe-torch-load'"
    ):
        sample.verdict(criterion)


def test_reproduce_command_finds_the_same(sample: Sample, tmp_path: Path, monkeypatch):
    # In the place of the default engine, which takes seconds to start, the core that it drives.
    core = engines.fast()
    engine = tmp_path / "semgrep"
    engine.write_text(
        f"#!{sys.executable}\nimport os, sys\n"
        f"os.execv({str(core)!r}, ['osemgrep', sys.argv[1], '--experimental', *sys.argv[2:]])\n"
    )
    engine.chmod(0o755)
    monkeypatch.setattr(engines, "default", lambda: engine)
    sample.write("src/a b.py", UNSAFE)
    command = scan(sample, "src/a b.py").evidence.reproduce[-1]
    done = sample.shell(command)
    assert done.returncode == 1, done.stderr
    assert "src/a b.py" in done.stdout


def test_reproduce_command_names_what_lies_in_the_repository_from_its_root(
    sample: Sample, monkeypatch
):
    with_ = {"rules": ["unsafe-torch-load"], "paths": ["src"]}
    context = sample.context({"id": "loads", "uses": "semgrep", "with": with_})
    root = context.candidate.repository.root
    monkeypatch.setattr(engines, "default", lambda: root / ".venv/bin/semgrep")
    monkeypatch.setattr(rules, "RULES", root / "judge/rules")
    (command,) = semgrep.reproduce(context.criterion.parameters, context)
    assert command.startswith(".venv/bin/semgrep scan --config=judge/rules/")
    assert str(root) not in command


def test_over_long_line_is_read_to_its_end(sample: Sample):
    sample.write("src/a.py", f"import torch\nx = [{'1, ' * 200_000}torch.load('m')]\n")
    assert places(scan(sample)) == [("src/a.py", 2)]


@pytest.mark.parametrize(
    "first", ["#!/usr/bin/env -S uv run --script", "#! /usr/bin/pypy3", "#!/usr/bin/python3 -I"]
)
def test_script_is_known_by_what_runs_it(sample: Sample, first: str):
    sample.write("src/run-me", f"{first}\n{UNSAFE}")
    assert places(scan(sample)) == [("src/run-me", 4)]


def test_submodule_is_not_passed_over(sample: Sample, tmp_path: Path):
    other = tmp_path / "other"
    other.mkdir()
    commit = ("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "one")
    for arguments in (("init", "-q"), ("add", "-A"), (*commit, "--allow-empty")):
        subprocess.run(["git", *arguments], cwd=other, check=True)
    sample.commit()
    add = ["git", "-c", "protocol.file.allow=always", "submodule", "add", "-q"]
    subprocess.run([*add, str(other), "src/vendored"], cwd=sample.root, check=True)
    verdict = scan(sample)
    assert verdict.status == "error"
    assert "src/vendored" in verdict.summary


def test_findings_are_kept_on_a_laptop_and_in_ci_only_where_it_is_asked_for(
    sample: Sample, tmp_path: Path, monkeypatch
):
    for name in ("CI", "GITHUB_ACTIONS", "TIERGATE_CACHE"):
        monkeypatch.delenv(name, raising=False)
    kept = tmp_path / "cache" / "tiergate" / "findings"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    sample.write("src/a.py", UNSAFE)
    monkeypatch.setenv("CI", "true")
    assert places(scan(sample)) == [("src/a.py", 3)]
    assert not kept.exists()
    monkeypatch.setenv("TIERGATE_CACHE", "1")
    assert places(scan(sample)) == [("src/a.py", 3)]
    names = {path.name.split("-")[0] for path in kept.iterdir()}
    assert names == {"loads", "scan", "semgrep", "syntax"}
    scanned: list[list[str]] = []
    run = engines.scan

    def names_of(folder: Path) -> list[str]:
        return sorted(path.name for path in folder.iterdir())

    monkeypatch.setattr(
        engines, "scan", lambda *given: (scanned.append(names_of(given[1])), run(*given))[1]
    )
    sample.write("src/other.py", "x = 1\n")
    assert places(scan(sample)) == [("src/a.py", 3)]
    sample.write("src/a.py", f"\n{UNSAFE}")
    assert places(scan(sample)) == [("src/a.py", 4)]
    # From what was kept, but for the file that changed; the examples are scanned beside.
    assert scanned == [["unsafe-torch-load.py"], ["0.py", "unsafe-torch-load.py"]]


def test_tree_in_which_nothing_changed_is_not_scanned_again(
    sample: Sample, tmp_path: Path, monkeypatch
):
    monkeypatch.setenv("TIERGATE_CACHE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    scans: list[Path] = []
    run = engines.scan
    monkeypatch.setattr(engines, "scan", lambda *given: (scans.append(given[1]), run(*given))[1])
    tracked, untracked = sample.root / "src/a.py", sample.root / "src/b.py"
    sample.write("src/a.py", UNSAFE)
    sample.commit()
    sample.write("src/b.py", UNSAFE)
    first, again = scan(sample), scan(sample)
    assert places(first) == [("src/a.py", 3), ("src/b.py", 3)]
    assert (again.summary, again.evidence.findings, again.evidence.notes) == (
        first.summary,
        first.evidence.findings,
        first.evidence.notes,
    )
    assert len(scans) == 1
    # As long as before, and of the same time.
    about = tracked.stat()
    moved = UNSAFE.replace("\n\n", "\n").replace("')", "')\n")
    assert len(moved) == len(UNSAFE)
    for path in (tracked, untracked):
        path.write_text(moved)
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
        found = places(scan(sample))
        assert found[:1] == [("src/a.py", 2)]
    assert found == [("src/a.py", 2), ("src/b.py", 2)]
    assert len(scans) == 3
    monkeypatch.setenv("TIERGATE_CACHE", "0")
    assert places(scan(sample)) == found
    assert len(scans) == 4


def test_scan_that_failed_is_made_again(sample: Sample, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("TIERGATE_CACHE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    sample.commit()
    engine = tmp_path / "engine"
    engine.write_text("#!/bin/sh\nexit 2\n")
    engine.chmod(0o755)
    with monkeypatch.context() as broken:
        run = engines.scan
        broken.setattr(engines, "scan", lambda *given: run(given[0], given[1], engine, given[3]))
        assert scan(sample).status == "error"
    assert scan(sample).status == "pass"
