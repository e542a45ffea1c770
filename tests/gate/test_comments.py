"""The comment on a pull request, over HTTP against a server that holds to GitHub's description."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builders import TWO_LEGS, all_legs, parse
from github.server import TOKEN, Answer, GitHub, comment, serving

from tiergate import cli, verdict
from tiergate.render.pr_comment import MARK

BOT = "github-actions[bot]"


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch) -> Iterator[GitHub]:
    with serving(GitHub()) as server:
        monkeypatch.setenv("GITHUB_API_URL", server.url)
        monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
        monkeypatch.delenv("GH_TOKEN", raising=False)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server


@pytest.fixture
def post(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Post the reports of both legs, with cells that ended so; return exit code and output."""
    (tmp_path / "gate.yaml").write_bytes(TWO_LEGS)

    def call(*more: str, **statuses: str) -> tuple[int, str, str]:
        cells = {cell.replace("_", "@"): status for cell, status in statuses.items()}
        for leg in all_legs(parse(TWO_LEGS), cells):
            verdict.write(leg, tmp_path / "reports" / leg.device)
        words = ["report", "--to", "pr-comment", "--repo", str(tmp_path)]
        code = cli.run([*words, *more, str(tmp_path / "reports")])
        out, err = capsys.readouterr()
        assert TOKEN not in out + err
        assert "Traceback" not in err
        return code, out, err

    return call


HERE = ("--post", "octo/transformer#7")


def test_the_comment_is_posted_once_and_then_replaced_in_its_place(
    github: GitHub, post: Any
) -> None:
    # Enough for a second page; somebody else's comment with the mark is not ours to replace.
    github.comments += [comment(n, "ann", f"{MARK}\nmine" if n == 3 else "hm") for n in range(150)]
    assert post(*HERE, B_cpu="fail")[0] == 0
    assert github.changes == ["POST /repos/octo/transformer/issues/7/comments"]
    (mine,) = (c for c in github.comments if c["user"]["login"] == BOT)
    assert mine["body"].startswith(f"{MARK}\n")
    assert "GATE FAILED" in mine["body"]
    code, out, err = post(*HERE)
    assert (code, out) == (0, "")
    assert "octo/transformer#7: the comment is replaced" in err
    assert github.changes[1:] == [f"PATCH /repos/octo/transformer/issues/comments/{mine['id']}"]
    assert "GATE PASSED" in mine["body"]
    assert "GATE FAILED" not in mine["body"]
    assert github.comments[3]["body"] == f"{MARK}\nmine"
    mine["body"] = mine["body"].replace("\n", "\r\n")  # as a browser's editor saves it
    assert "unchanged" in post(*HERE)[2]
    assert len(github.changes) == 2
    assert post(*HERE, "--post-as", "ann")[0] == 0
    assert "GATE PASSED" in github.comments[3]["body"]


@pytest.mark.parametrize(
    ("status", "code", "sentence"),
    [
        (401, 2, "the token in GITHUB_TOKEN or GH_TOKEN is wrong, expired or revoked"),
        (403, 2, "never on a pull request from a fork"),
        (404, 2, "there is no such thing, or the token may not see it"),
        (500, 3, "GitHub has a problem"),
    ],
)
def test_a_comment_that_github_refuses_is_told(
    github: GitHub, post: Any, status: int, code: int, sentence: str
) -> None:
    github.instead["POST .*"] = Answer(status, f'{{"message": "no {TOKEN}"}}'.encode())
    found = post(*HERE)
    assert found[0] == code
    assert sentence in found[2]
    assert github.comments == []


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--post", "octo/transformer"], "write it OWNER/REPO#NUMBER"),
        (["--post", "octo/transformer#0"], "write it OWNER/REPO#NUMBER"),
        (["--post", "../..#7"], "write it OWNER/REPO"),
        (["--to", "text", *HERE], "--post belongs to --to pr-comment"),
        (["--post-as", "ann"], "--post-as to --post"),
    ],
)
def test_a_place_where_nothing_can_be_posted_is_a_mistake(
    github: GitHub, post: Any, words: list[str], complaint: str
) -> None:
    code, _, err = post(*words)
    assert code == 2
    assert complaint in err
    assert github.requests == []
