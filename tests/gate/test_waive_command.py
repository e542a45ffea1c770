"""``tiergate waive`` writes a waiver that counts, and keeps the rest of the file as it is."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import PASSES, Sample

from tiergate import spec, waiver_file
from tiergate.cli import run

LOADS = {
    "id": "loads",
    "uses": "semgrep",
    "with": {"rules": ["unsafe-torch-load"], "paths": ["src"]},
}
GATE = """\
gate: T   # the only one
criteria:
  - {id: A, uses: command, with: {run: ["false"]}}
"""
BLOCK = """\
gate: T
criteria:
  - id: loads
    uses: semgrep
    with: {rules: [unsafe-torch-load], paths: [src]}
"""
ONE_MORE = """\
waivers:
  # why
  - {criterion: A, device: cpu, reason: r, owner: o, expires: "2026-12-01"}

# the end
"""


def waive(tmp_path, text: str, *arguments: str) -> str:
    path = tmp_path / "gate.yaml"
    path.write_text(text)
    options = ["--spec", str(path), "--reason", "later: soon", "--owner", "me", *arguments]
    assert run(["waive", "A", *options]) == 0
    return path.read_text()


@pytest.mark.parametrize(
    "text",
    [
        GATE,
        GATE.rstrip("\n"),
        f"{GATE}waivers: []  # none yet\n",
        GATE + ONE_MORE,
        "waivers: []\n" + GATE,
        f"{GATE}waivers:\n- criterion: A\n  reason: r\n  owner: o\n  expires: '2026-12-01'\n",
    ],
    ids=["no list", "no newline", "empty list", "one more", "list first", "not indented"],
)
def test_every_line_that_was_there_stays(tmp_path, text):
    after = waive(tmp_path, text)
    kept = [" ".join(line.split()) for line in text.replace(" []", "").splitlines()]
    found = [" ".join(line.split()) for line in after.splitlines()]
    assert [line for line in found if line in kept and line] == [line for line in kept if line]
    assert len(spec.parse(after.encode(), tmp_path).waivers) == text.count("reason: r") + 1


def test_the_date_is_counted_from_today(tmp_path):
    expires = datetime.now(timezone.utc).date() + timedelta(days=9)
    assert f'expires: "{expires}"' in waive(tmp_path, GATE, "--days", "9")


@pytest.mark.parametrize("days", ["0", "91"])
def test_a_waiver_of_more_than_90_days_is_refused(tmp_path, days, capsys):
    (tmp_path / "gate.yaml").write_text(GATE)
    arguments = ["--spec", str(tmp_path / "gate.yaml"), "--reason", "r", "--owner", "o"]
    assert run(["waive", "A", *arguments, "--days", days]) == 2
    assert (tmp_path / "gate.yaml").read_text() == GATE


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(str.strip))
def test_any_reason_is_read_back_as_it_was_written(reason):
    entry = {"criterion": "A", "reason": reason, "owner": "o", "expires": "2026-12-01"}
    data = waiver_file.add(GATE.encode(), entry)
    assert spec.parse(data, Path("gate.yaml")).waivers[0].reason == reason


def test_a_spec_in_flow_style_is_left_alone(tmp_path, capsys):
    path = tmp_path / "gate.yaml"
    path.write_text('{gate: T, criteria: [{id: A, uses: command, with: {run: ["false"]}}]}\n')
    before = path.read_bytes()
    assert run(["waive", "A", "--spec", str(path), "--reason", "r", "--owner", "o"]) == 2
    assert "in block style by hand" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_a_waived_finding_passes_and_a_second_one_fails(sample: Sample):
    sample.write("src/shop/load.py", "import torch\n\nmodel = torch.load('a')\n")
    sample.write("gate.yaml", BLOCK)
    sample.commit()
    assert sample.run("--only", "loads").returncode == 1
    done = sample.tiergate(
        "waive", "loads", "--finding", "src/shop/load.py:3", "--reason", "r", "--owner", "o"
    )
    assert done.returncode == 0, done.stderr
    sample.write("src/shop/load.py", "import torch\n\n\n# moved\nmodel = torch.load('a')\n")
    sample.commit()
    assert sample.run("--only", "loads").returncode == 0
    sample.write("src/shop/other.py", "import torch\n\nmodel = torch.load('a')\n")
    sample.commit()
    assert sample.run("--only", "loads").returncode == 1


def test_a_finding_that_is_not_there_is_a_clear_error(sample: Sample):
    sample.gate(PASSES, LOADS)
    sample.commit()
    sample.run("--only", "loads")
    options = ["--finding", "src/shop/load.py:3", "--reason", "r", "--owner", "o"]
    done = sample.tiergate("waive", "loads", *options)
    assert done.returncode == 2
    assert "no finding of loads there" in done.stderr
