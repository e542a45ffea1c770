"""The command line: what it prints, and the exit codes of the contract."""

# ruff: noqa: E501 - a table of cases is read row by row

import errno
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from builders import ROOT, TWO_LEGS, all_legs, parse, report

from tiergate import __version__, checkers, schema, spec, verdict
from tiergate.cli import COMMANDS, run, tiergate
from tiergate.repository import Repository

replace = msgspec.structs.replace


@pytest.fixture(scope="module")
def repo(tmp_path_factory):
    """A git repository with a spec of two legs."""
    root = tmp_path_factory.mktemp("repository")
    (root / "gate.yaml").write_bytes(TWO_LEGS)
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *words], cwd=root, check=True)
    return root


@pytest.fixture
def legs(repo, tmp_path):
    """Write the reports of both legs, changed as asked; return the folder that holds them."""

    def write(statuses=None, **changes) -> Path:
        gate = spec.load(repo / "gate.yaml")
        source = Repository(repo).source()
        for leg in all_legs(gate, statuses):
            changed = replace(leg, source=source)
            if leg.device == "cuda":
                changed = replace(changed, **changes)
            verdict.write(changed, tmp_path / "legs" / leg.device)
        return tmp_path / "legs"

    return write


def decide(repo, *words) -> int:
    return run(["decide", "--repo", str(repo), *map(str, words)])


# Help and mistakes.


def test_help_lists_the_commands_and_the_exit_codes(capsys):
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    for name in ("run", "decide", "explain", "plan", "schema"):
        assert f"\n  {name} " in shown
    assert re.findall(r"^    ([0-9])  the (?:gate|spec)", shown, re.MULTILINE) == list("0123")


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_with_examples_and_exit_codes(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert run([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"Usage: tiergate {name} ")
    assert re.search(rf"Examples:\s+tiergate {name}\b", shown)
    assert re.search(r"Exit codes:\s+0 ", shown)
    assert [line for line in shown.splitlines() if len(line) > 80] == []


def example_lines():
    """Yield every command line that the help of a command shows as an example."""
    for name in COMMANDS:
        command = importlib.import_module(f"tiergate.commands.{name.replace('-', '_')}").command
        for line in (command.epilog or "").splitlines():
            if line.strip().startswith("tiergate "):
                yield line.strip()


@pytest.mark.parametrize("line", list(example_lines()))
def test_each_example_is_a_command_line_that_can_be_read(line):
    words = shlex.split(re.split(" >>? ", line)[0])
    assert words[0] == "tiergate"
    command = tiergate.get_command(
        tiergate.make_context("tiergate", ["--help"], resilient_parsing=True), words[1]
    )
    command.make_context(words[1], words[2:]).close()


def test_the_version_is_told(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"tiergate, version {__version__}\n"


@pytest.mark.parametrize(
    "words",
    [
        ["--no-such-option"],
        ["no-such-command"],
        [],
        ["plan", "--no-such-option"],
        ["schema", "other"],
        ["explain"],
        ["run", "--device", "tpu"],
        ["run", "--jobs", "0"],
        ["run", "--timeout", "0"],
        ["plan", "--repo", "/no/such/folder"],
    ],
)
def test_a_wrong_command_line_is_exit_code_2(words, capsys):
    assert run(words) == 2
    out = capsys.readouterr()
    assert out.out == ""
    assert "Usage: tiergate" in out.err
    assert "Traceback" not in out.err


def test_the_nearest_command_is_named(capsys):
    assert run(["rnu"]) == 2
    assert "No such command 'rnu'. (did you mean 'run'?)" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["plan"], ["run"], ["explain", "A"], ["decide"]])
def test_a_missing_spec_is_exit_code_2_and_one_line(words, tmp_path, capsys):
    assert run([*words, "--repo", str(tmp_path)]) == 2
    out = capsys.readouterr()
    assert out.out == ""
    assert out.err == (
        f"tiergate: {tmp_path}/gate.yaml: cannot read the spec: No such file or directory; "
        "name one with --spec, or let `tiergate init` write one\n"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gate: T\ncriteria: [{id: A, uses: comand}]\n", "2:26: unknown checker 'comand'"),
        ("gat: T\ncriteria: []\n", "1:1: missing 'gate'"),
    ],
)
def test_a_wrong_spec_is_exit_code_2_and_each_line_begins_with_its_place(
    text, message, tmp_path, capsys
):
    path = tmp_path / "g.yaml"
    path.write_text(text)
    assert run(["plan", "--spec", str(path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(f"{path}:{message}")
    assert all(line.startswith(f"{path}:") for line in lines)


def test_an_error_of_ours_is_red_and_asks_for_a_report(monkeypatch, capsys, repo):
    monkeypatch.setattr(spec, "load", lambda path: 1 / 0)
    assert run(["plan", "--repo", str(repo)]) == 3
    err = capsys.readouterr().err
    assert "ZeroDivisionError" in err
    assert err.endswith("tiergate: internal error; please report it with the lines above\n")


def test_a_command_that_returns_no_code_is_not_a_pass(monkeypatch, capsys, repo):
    from tiergate.commands import plan as module

    monkeypatch.setattr(module.command, "callback", lambda **_: None)
    assert run(["plan", "--repo", str(repo)]) == 3


def test_an_interrupt_is_exit_code_3(monkeypatch, capsys, repo):
    def interrupt(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(spec, "load", interrupt)
    assert run(["plan", "--repo", str(repo)]) == 3
    assert capsys.readouterr().err == "tiergate: interrupted\n"


def process(*words, **more) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "tiergate", *words], check=False, capture_output=True, **more
    )


def test_nobody_reading_is_no_pass_and_no_failed_gate():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "tiergate", "schema"],
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    assert done.returncode == 3
    assert b"Traceback" not in done.stderr


def test_a_full_disk_is_one_line_and_no_pass():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tiergate", "schema"],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.stderr == b"tiergate: standard output: No space left on device\n"
    assert done.returncode == 3


def test_a_file_that_may_not_be_written_is_named_in_one_line(monkeypatch, repo, capsys):
    opened = os.open
    target = repo / "STATUS.md"

    def read_only(name, flags, *rest, **more):
        if flags & os.O_CREAT and Path(name).parent == repo:
            raise PermissionError(errno.EACCES, "Permission denied", str(name))
        return opened(name, flags, *rest, **more)

    monkeypatch.setattr(os, "open", read_only)
    assert run(["status", "--repo", str(repo), "--write", str(target)]) == 3
    assert capsys.readouterr().err.endswith(f"tiergate: {target}: Permission denied\n")


@pytest.mark.parametrize(("closed", "code"), [(1, 3), (2, 2)])
def test_a_closed_stream_is_no_traceback_and_no_pass(closed, code):
    words = ["schema"] if closed == 1 else ["explain", "--bogus"]
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {closed}>&-', "sh", sys.executable, "-m", "tiergate", *words],
        capture_output=True,
        check=False,
    )
    assert done.returncode == code
    assert done.stdout == b""
    assert done.stderr.startswith(b"tiergate: standard output is closed" if closed == 1 else b"")
    assert b"Traceback" not in done.stderr


def test_what_cannot_be_written_at_the_very_end_is_no_pass():
    code = "import sys\nfrom tiergate import cli\ncli.run = lambda _: sys.stdout.write('x') * 0\n"
    command = [sys.executable, "-c", f"{code}cli.main([])"]
    buffered = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    with Path("/dev/full").open("w") as full:
        assert subprocess.run(command, stdout=full, env=buffered, check=False).returncode == 3
    done = subprocess.run(command, capture_output=True, env=buffered, check=False)
    assert (done.returncode, done.stdout) == (0, b"x")


def test_a_terminal_without_unicode_gets_the_decision_all_the_same(repo, legs):
    folder = legs({"B@cpu": "fail"})
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = process("decide", "--repo", str(repo), str(folder), env=environment)
    assert done.returncode == 1
    assert b"TIER 0 GATE FAILED \\u2014 fix before proceeding" in done.stdout
    assert b"Traceback" not in done.stderr


# schema


def test_schema_prints_the_schemas(capsys):
    assert run(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(schema.gate_schema()))
    assert run(["schema", "report"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(verdict.json_schema()))


# validate


def test_validate_lists_each_problem_at_its_place_and_goes_on(tmp_path, capsys):
    (tmp_path / "good.yaml").write_bytes(TWO_LEGS)
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("gate: T\ncriteria:\n  - {id: A, uses: comand}\n  - {id: B, use: pytest}\n")
    missing = tmp_path / "missing.yaml"
    assert run(["validate", str(wrong), str(missing), str(tmp_path / "good.yaml")]) == 2
    shown = capsys.readouterr()
    assert shown.out == f"{tmp_path}/good.yaml: valid: 3 criteria in TIER 0, on cpu, cuda\n"
    first, second, *_, last = shown.err.splitlines()
    assert first.startswith(f"{wrong}:3:19: unknown checker 'comand'")
    assert second.startswith(f"{wrong}:4:")
    assert last.startswith(f"tiergate: {missing}: cannot read the spec")


def test_validate_takes_the_spec_of_the_current_folder(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert run(["validate"]) == 0
    assert capsys.readouterr().out.startswith("gate.yaml: valid: ")


# completion


@pytest.mark.parametrize(
    ("words", "number", "offered"),
    [
        ("tiergate va", "1", ["plain,validate"]),
        ("tiergate run --devi", "2", ["plain,--device"]),
        ("tiergate explain ISS-00", "2", [f"plain,ISS-00{n}" for n in range(1, 6)]),
        ("tiergate run --only coll", "3", ["plain,collection"]),
        ("tiergate explain --spec no.yaml ISS", "4", []),
    ],
)
def test_a_shell_completes_commands_options_and_ids(words, number, offered, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", number)
    monkeypatch.setenv("_TIERGATE_COMPLETE", "bash_complete")
    assert run([]) == 0
    assert capsys.readouterr().out.split() == offered


def test_the_script_for_bash_is_one_that_bash_takes(capsys):
    assert run(["completion", "bash"]) == 0
    script = capsys.readouterr().out + "complete -p tiergate\n"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert "-F _tiergate_completion tiergate" in done.stdout


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_scripts_ask_in_the_words_of_their_shell(shell, capsys):
    assert run(["completion", shell]) == 0
    assert f"_TIERGATE_COMPLETE={shell}_complete" in capsys.readouterr().out


# plan


def test_plan_shows_the_cells_of_each_leg_in_waves(repo, capsys):
    assert run(["plan", "--repo", str(repo)]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["cpu", "leg:", "2", "cells"],
        ["wave", "1"],
        ["A@cpu", "pytest"],
        ["wave", "2"],
        ["B@cpu", "semgrep", "after", "A@cpu"],
        ["cuda", "leg:", "2", "cells"],
        ["wave", "1"],
        ["A@cuda", "pytest"],
        ["C@cuda", "command"],
    ]


def test_plan_prints_the_matrix_as_one_line(repo, capsys):
    assert run(["plan", "--repo", str(repo), "--github-matrix"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert [leg["device"] for leg in json.loads(out)["include"]] == ["cpu", "cuda"]


def test_plan_orders_the_remedies_of_this_repository(tmp_path, capsys):
    gate = spec.load(ROOT / "gate.yaml")
    statuses = dict.fromkeys(("ISS-001", "ISS-003", "ISS-005"), "fail")
    leg = report(gate, "cpu", {**statuses, "collection": "blocked"})
    path = verdict.write(leg, tmp_path)
    words = ["plan", "--spec", str(ROOT / "gate.yaml"), "--repo", str(ROOT)]
    assert run([*words, "--failed", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    outline = [line for line in lines if not line.startswith("    ")]
    assert outline == [
        "wave 1: in parallel",
        "  0.16: ISS-001",
        "  0.16b: ISS-003",
        "  0.16c: ISS-005",
        "wave 2: one task, after the wave before",
        "  0.19: collection",
        "wave 3: one task, after the wave before",
        "  0.20: TIER 0",
    ]
    verify = [line.split(maxsplit=1)[1] for line in lines if line.startswith("    verify")]
    assert verify == [
        "tiergate run --only ISS-001 --device cpu",
        "tiergate run --only ISS-003 --device cpu",
        "tiergate run --only ISS-005 --device cpu",
        "tiergate run --only collection --device cpu",
        "tiergate run",
    ]


def test_plan_has_nothing_to_mend_after_a_pass(repo, legs, capsys):
    folder = legs()
    failed = ["--failed", str(folder / "cpu"), "--failed", str(folder / "cuda")]
    assert run(["plan", "--repo", str(repo), *failed]) == 0
    assert capsys.readouterr().out == "nothing to mend: every judged cell passed\n"


def test_plan_refuses_a_report_of_another_spec(repo, legs, tmp_path, capsys):
    other = report(parse(TWO_LEGS + b"# another\n"), "cpu", {"A": "fail"})
    path = verdict.write(other, tmp_path / "other")
    assert run(["plan", "--repo", str(repo), "--failed", str(path)]) == 2
    assert "made from another spec than" in capsys.readouterr().err


def test_plan_of_a_report_that_is_not_there_is_not_evaluated(repo, tmp_path, capsys):
    assert run(["plan", "--repo", str(repo), "--failed", str(tmp_path / "r.json")]) == 3
    assert "cannot read the report" in capsys.readouterr().err


def test_plan_refuses_options_that_exclude_each_other(repo, legs, capsys):
    words = ["--github-matrix", "--failed", str(legs() / "cpu")]
    assert run(["plan", "--repo", str(repo), *words]) == 2


# explain


def test_explain_says_what_a_criterion_means(repo, capsys):
    assert run(["explain", "A", "--repo", str(repo)]) == 0
    shown = capsys.readouterr().out
    for line in (
        "A\n",
        "  tier          TIER 0\n",
        "  with          paths: [tests/a.py]\n",
        "  expects       passed: 3\n",
        "  devices       cpu, cuda\n",
        f"  defined at    {repo}/gate.yaml:6\n",
        "    tiergate run --only A --device cuda\n",
        "    task      1\n",
        "    files     src/a.py\n",
    ):
        assert line in shown
    assert "TIERGATE_DEVICE=cuda" in shown


def test_every_criterion_of_this_repository_can_be_explained(capsys):
    for criterion in spec.load(ROOT / "gate.yaml").criteria:
        assert run(["explain", criterion.id, "--repo", str(ROOT)]) == 0
        assert f"  holds when    {criterion.name}\n" in capsys.readouterr().out


def test_each_kind_of_criterion_can_be_explained(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import make_checkers

    waiver = "waivers: [{criterion: loads, reason: later, owner: me, expires: '2026-12-01'}]\n"
    text = f"gate: T\ncriteria:\n{''.join(make_checkers.CRITERIA.values())}{waiver}"
    (tmp_path / "gate.yaml").write_text(text)
    assert set(make_checkers.CRITERIA) == set(checkers.BUILT_IN)
    for criterion in parse(text).criteria:
        assert run(["explain", criterion.id, "--repo", str(tmp_path)]) == 0
        shown = capsys.readouterr().out
        assert f"  checker       {criterion.uses}: " in shown
        assert "\n  with          " in shown
        assert ("  waived        loads until 2026-12-01: later (me)\n" in shown) == (
            criterion.id == "loads"
        )


def test_explain_suggests_the_nearest_id(capsys):
    assert run(["explain", "ISS-03", "--repo", str(ROOT)]) == 2
    assert "no criterion 'ISS-03' (did you mean 'ISS-003'?)" in capsys.readouterr().err


# decide


def test_two_green_legs_pass(repo, legs, capsys):
    assert decide(repo, legs()) == 0
    assert capsys.readouterr().out.endswith("TIER 0 GATE PASSED — proceed to TIER 1\n")


def test_a_file_a_folder_or_several_are_all_taken(repo, legs):
    folder = legs()
    assert decide(repo, folder / "cpu" / "report.json", folder / "cuda") == 0


def test_a_failed_cell_is_exit_code_1(repo, legs, capsys):
    assert decide(repo, legs({"C@cuda": "fail"})) == 1
    assert capsys.readouterr().out.endswith("TIER 0 GATE FAILED — fix before proceeding\n")


def test_no_reports_at_all_are_exit_code_3(repo, capsys):
    assert decide(repo) == 3
    assert "! A@cpu: no verdict: the cpu leg has no report" in capsys.readouterr().out


def test_a_missing_leg_is_exit_code_3_and_named(repo, legs, capsys):
    assert decide(repo, legs() / "cpu") == 3
    shown = capsys.readouterr().out
    assert "! C@cuda: no verdict: the cuda leg has no report" in shown
    assert shown.endswith("TIER 0 GATE NOT EVALUATED — not a pass\n")


def test_a_missing_file_is_exit_code_3_and_named(repo, legs, tmp_path, capsys):
    assert decide(repo, legs(), tmp_path / "no.json") == 3
    assert f"! {tmp_path}/no.json: cannot read the report" in capsys.readouterr().out


def test_one_leg_may_be_expected_alone(repo, legs, capsys):
    assert decide(repo, legs() / "cpu", "--device", "cpu") == 0
    assert "not judged here: A@cuda, C@cuda" in capsys.readouterr().out


def test_a_truncated_report_is_exit_code_3(repo, legs, capsys):
    folder = legs()
    path = folder / "cuda" / "report.json"
    path.write_bytes(path.read_bytes()[:-40])
    assert decide(repo, folder) == 3
    assert f"! {path}: not a readable report" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"complete": False, "interruption": "interrupted by SIGINT"}, "incomplete: interrupted by SIGINT"),
        ({"spec": verdict.SpecIdentity("x.yaml", "0" * 64)}, "made from another spec (x.yaml"),
        ({"source": verdict.Source("d" * 40, "e" * 64)}, "of another state of the repository"),
        ({"device_proof": {}}, "no proof of a CUDA device"),
        ({"schema_version": 99}, "schema version 99"),
    ],
)  # fmt: skip
def test_a_report_that_cannot_be_believed_is_exit_code_3(change, message, repo, legs, capsys):
    assert decide(repo, legs(**change)) == 3
    assert message in capsys.readouterr().out


def test_the_same_report_twice_is_exit_code_3(repo, legs, capsys):
    folder = legs()
    assert decide(repo, folder, folder / "cpu") == 3
    assert "A@cpu: 2 verdicts, where there must be exactly one" in capsys.readouterr().out


def test_a_change_of_the_repository_after_the_reports_is_no_pass(repo, legs, capsys):
    folder = legs()
    stray = repo / "stray.py"
    stray.write_text("1\n")
    try:
        assert decide(repo, folder) == 3
    finally:
        stray.unlink()
    assert "of another state of the repository" in capsys.readouterr().out
    assert decide(repo, folder) == 0


def test_a_leg_that_the_spec_does_not_have_is_a_mistake(tmp_path, capsys):
    path = tmp_path / "gate.yaml"
    path.write_text("gate: T\ncriteria: [{id: A, uses: command, with: {run: [a]}}]\n")
    assert run(["decide", "--repo", str(tmp_path), "--device", "cuda"]) == 2
    assert "has no such leg" in capsys.readouterr().err


def test_for_github_the_body_is_no_command_and_the_summary_is_written(
    repo, legs, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    assert decide(repo, legs({"C@cuda": "fail"}), "--format", "github") == 1
    first, *body = capsys.readouterr().out.splitlines()
    token = first.removeprefix("::stop-commands::")
    assert len(token) == 32
    end = body.index(f"::{token}::")
    assert body[end + 1 :] == ["::error title=C@cuda::fail it is"]
    written = (tmp_path / "summary.md").read_text()
    assert written.startswith("## TIER 0 GATE FAILED — fix before proceeding\n")
