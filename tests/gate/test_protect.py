"""``tiergate protect``, over HTTP against a server that holds to GitHub's description."""

from __future__ import annotations

import copy
import io
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from github.server import ACTIONS, TOKEN, Answer, GitHub, protection, serving

from tiergate import cli

OWNED = {
    ".github/CODEOWNERS": "/.github/ @octo/core\n/scripts/ @octo/core\n/gate.yaml @octo/core\n",
    ".github/workflows/gate.yml": "on: pull_request\njobs: {}\n",
    "gate.yaml": "gate: X\n",
}
OTHERS: list[dict[str, Any]] = [
    {"type": "required_linear_history"},
    {
        "type": "required_status_checks",
        "parameters": {
            "strict_required_status_checks_policy": False,
            "required_status_checks": [
                {"context": "lint", "integration_id": 99},
                {"context": "gate"},
            ],
        },
    },
]
CLASSIC: dict[str, Any] = {
    "required_status_checks": {
        "strict": False,
        "contexts": [],
        "checks": [{"context": "lint", "app_id": -1}, {"context": "docs", "app_id": 7}],
    },
    "enforce_admins": False,
    "required_pull_request_reviews": {
        "dismiss_stale_reviews": True,
        "require_code_owner_reviews": False,
        "required_approving_review_count": 2,
        "require_last_push_approval": True,
        "dismissal_restrictions": {"users": ["ann"], "teams": ["core"], "apps": []},
        "bypass_pull_request_allowances": {"users": [], "teams": [], "apps": ["bot"]},
    },
    "restrictions": {"users": ["ann"], "teams": [], "apps": ["deployer"]},
    "required_linear_history": True,
    "allow_force_pushes": False,
    "allow_deletions": False,
    "block_creations": True,
    "required_conversation_resolution": True,
    "lock_branch": False,
    "allow_fork_syncing": True,
}


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch) -> Iterator[GitHub]:
    with serving(GitHub(files=dict(OWNED))) as server:
        monkeypatch.setenv("GITHUB_API_URL", server.url)
        monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
        monkeypatch.delenv("GH_TOKEN", raising=False)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server


@pytest.fixture
def tiergate(capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*words: str) -> tuple[int, str, str]:
        code = cli.run(list(words))
        out, err = capsys.readouterr()
        assert TOKEN not in out + err
        assert "Traceback" not in err
        return code, out, err

    return call


def protect(tiergate: Any, *options: str) -> tuple[int, str, str]:
    result: tuple[int, str, str] = tiergate("protect", "octo/transformer", *options)
    return result


def ruleset(rules: list[dict[str, Any]], **other: Any) -> dict[str, Any]:
    return {
        "id": 40,
        "name": "tiergate",
        "target": "branch",
        "source_type": "Repository",
        "source": "octo/transformer",
        "enforcement": "active",
        "bypass_actors": [{"actor_id": 5, "actor_type": "Team", "bypass_mode": "always"}],
        "conditions": {"ref_name": {"include": ["~DEFAULT_BRANCH"], "exclude": []}},
        "rules": copy.deepcopy(rules),
        **other,
    }


# Rulesets


def test_an_unprotected_branch_gets_a_ruleset_once(github: GitHub, tiergate: Any) -> None:
    code, out, err = protect(tiergate, "--yes")
    assert (code, out) == (0, ""), err
    assert "no check" in err
    assert '+  "enforcement": "active"' in err
    (made,) = github.rulesets
    assert made["conditions"]["ref_name"]["include"] == ["~DEFAULT_BRANCH"]
    (checks,) = (r["parameters"] for r in made["rules"] if r["type"] == "required_status_checks")
    assert checks["required_status_checks"] == [{"context": "gate", "integration_id": ACTIONS}]
    assert checks["strict_required_status_checks_policy"] is True
    assert ".github/CODEOWNERS covers .github/, scripts/, gate.yaml" in err

    code, _, err = protect(tiergate, "--yes")
    assert code == 0
    assert "nothing to change" in err
    assert github.changes == ["POST /repos/octo/transformer/rulesets"]


def test_a_ruleset_is_completed_and_what_others_made_of_it_stays(
    github: GitHub, tiergate: Any
) -> None:
    github.rulesets = [
        ruleset(OTHERS, enforcement="evaluate"),
        ruleset(OTHERS, name="of somebody else", id=41),
    ]
    before = copy.deepcopy(github.rulesets)
    code, _, err = protect(tiergate, "--yes", "--merge-queue", "--code-owner-review")
    assert code == 0, err
    ours, other = github.rulesets
    assert other == before[1]
    assert ours["enforcement"] == "active"
    assert ours["bypass_actors"] == before[0]["bypass_actors"]
    linear, checks, queue, reviews = ours["rules"]
    assert linear == {"type": "required_linear_history"}
    assert checks["parameters"] == {
        "strict_required_status_checks_policy": False,
        "required_status_checks": [
            {"context": "lint", "integration_id": 99},
            {"context": "gate", "integration_id": ACTIONS},
        ],
    }
    assert queue["parameters"]["grouping_strategy"] == "ALLGREEN"
    assert reviews["parameters"]["require_code_owner_review"] is True
    assert "lint (app 99)" in err
    assert "gate (reported by any app)" in err
    code, _, err = protect(tiergate, "--merge-queue", "--code-owner-review")
    assert code == 0
    assert "nothing to change" in err
    assert github.changes == ["PUT /repos/octo/transformer/rulesets/40"]


def test_another_branch_is_added_to_the_conditions(github: GitHub, tiergate: Any) -> None:
    github.rulesets = [
        ruleset(
            [],
            conditions={"ref_name": {"include": ["refs/heads/v1"], "exclude": ["refs/heads/old"]}},
        )
    ]
    assert protect(tiergate, "--yes", "--strict")[0] == 0
    (ours,) = github.rulesets
    assert ours["conditions"]["ref_name"] == {
        "include": ["refs/heads/v1", "~DEFAULT_BRANCH"],
        "exclude": ["refs/heads/old"],
    }
    assert ours["rules"][0]["parameters"]["strict_required_status_checks_policy"] is True


def test_an_excluded_branch_is_not_claimed_to_be_protected(github: GitHub, tiergate: Any) -> None:
    names = {"include": ["refs/heads/x"], "exclude": ["refs/heads/ma*"]}
    github.rulesets = [ruleset([], conditions={"ref_name": names})]
    code, _, err = protect(tiergate, "--yes")
    assert code == 2
    assert "excludes the branch main: refs/heads/ma*" in err
    assert github.changes == []


def test_a_dry_run_prints_the_body_for_gh_and_changes_nothing(
    github: GitHub, tiergate: Any
) -> None:
    code, out, err = protect(tiergate, "--dry-run", "--merge-queue")
    assert code == 0
    body = json.loads(out)
    assert body["name"] == "tiergate"
    assert {rule["type"] for rule in body["rules"]} >= {"merge_queue", "required_status_checks"}
    assert "gh api --method POST repos/octo/transformer/rulesets --input -" in err
    assert github.changes == []


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1), ("", 3)])
def test_it_asks_and_takes_no_answer_for_a_no(
    github: GitHub, tiergate: Any, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal(answer))
    assert protect(tiergate)[0] == code
    assert bool(github.changes) == (code == 0)


def test_without_a_terminal_it_does_not_guess(
    github: GitHub, tiergate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    code, _, err = protect(tiergate)
    assert code == 2
    assert "--yes" in err
    assert github.changes == []


def test_a_change_that_did_not_take_effect_is_no_success(github: GitHub, tiergate: Any) -> None:
    made = json.dumps(ruleset([])).encode()
    github.instead[r"POST .*/rulesets"] = Answer(201, made)
    code, _, err = protect(tiergate, "--yes")
    assert code == 3
    assert "is not required on main now" in err


# Classic protection


@pytest.mark.parametrize("existing", [None, CLASSIC])
def test_classic_protection_keeps_every_setting(
    github: GitHub, tiergate: Any, existing: dict[str, Any] | None
) -> None:
    github.classic = protection(copy.deepcopy(existing)) if existing else None
    before = copy.deepcopy(github.classic)
    code, _, err = protect(tiergate, "--classic", "--yes")
    assert code == 0, err
    after = copy.deepcopy(github.classic)
    assert after is not None
    *others, gate = after["required_status_checks"].pop("checks")
    assert gate == {"context": "gate", "app_id": ACTIONS}
    if before is None:
        assert after["enforce_admins"]["enabled"] is True
    else:
        assert others == before["required_status_checks"].pop("checks")
        for shown in (after, before):
            del shown["required_status_checks"]["contexts"]
        assert after == before
    code, _, err = protect(tiergate, "--classic")
    assert code == 0
    assert "nothing to change" in err
    assert len(github.changes) == 1


def test_a_classic_protection_that_is_hidden_is_not_taken_for_none(
    github: GitHub, tiergate: Any
) -> None:
    github.instead["GET .*/protection"] = Answer(404, b'{"message": "Not Found"}')
    code, _, err = protect(tiergate, "--classic", "--yes")
    assert code == 2
    assert "may not see it" in err
    assert github.changes == []


# CODEOWNERS


def test_it_says_which_lines_codeowners_lacks(github: GitHub, tiergate: Any) -> None:
    github.files["scripts/check.py"] = ""
    github.files[".github/CODEOWNERS"] = "* @octo/core\n/scripts/*.py\n/gate.yaml\n"
    code, _, err = protect(tiergate, "--yes")
    assert code == 0
    assert "add to the end of .github/CODEOWNERS:" in err
    assert "/scripts/     @octo/core" in err
    assert "/gate.yaml    @octo/core" in err
    assert "/.github/ " not in err


# What can go wrong


NOW = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1795737600"}
ECHO = json.dumps({"message": f"Bad credentials {TOKEN}\x1b[31m\nred"}).encode()


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (Answer(401, ECHO), 2, "wrong, expired or revoked"),
        (Answer(403, b'{"message": "Resource not accessible"}'), 2, "Administration"),
        (Answer(404, b'{"message": "Not Found"}'), 2, "check the name"),
        (
            Answer(422, b'{"message": "Invalid", "errors": [{"field": "rules", "code": "bad"}]}'),
            2,
            "Invalid; rules bad",
        ),
        (Answer(403, b"{}", NOW), 3, "again after 00:00:00 UTC"),
        (Answer(429, b"{}", {"Retry-After": "30"}), 3, "again in 30 s"),
        (Answer(403, b'{"message": "exceeded a secondary rate limit"}'), 3, "again in 60 s"),
        (Answer(502, b"<html>"), 3, "GitHub has a problem (502"),
        (Answer(200, b"<html>"), 3, "is not JSON"),
        (Answer(200, b"[]"), 3, "is no repository"),
        (Answer(200, b"{}", {"Content-Length": "9"}), 3, "cannot reach"),
        (Answer(301, b"{}", {"Location": "http://[bad"}), 3, "cannot reach"),
    ],
)
def test_each_refusal_is_one_clear_sentence(
    github: GitHub, tiergate: Any, answer: Answer, code: int, words: str
) -> None:
    github.instead["GET /repos/octo/transformer"] = answer
    got, out, err = protect(tiergate, "--yes")
    assert (got, out) == (code, ""), err
    assert words in err
    assert err.count("\n") == 1
    assert "\x1b" not in err
    assert github.changes == []


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_an_answer_of_another_shape_is_told_apart_from_a_fault_of_ours(
    github: GitHub, tiergate: Any, method: str
) -> None:
    github.instead["GET .*/rules/branches/main"] = Answer(
        200, b'[{"type": "required_status_checks"}]'
    )
    code, _, err = protect(tiergate, "--yes")
    assert code == 3
    assert "not as its API describes" in err


def test_without_a_network_and_without_an_answer_it_says_so(
    tiergate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GH_TOKEN", TOKEN)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("GITHUB_API_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr("tiergate.github.client._TIMEOUT", 0.05)
        code, _, err = protect(tiergate)
        assert code == 3
        assert "no answer" in err
    code, _, err = protect(tiergate)
    assert code == 3
    assert "check the network" in err


@pytest.mark.parametrize(
    ("url", "token", "words"),
    [
        ("http://github.example.org/api/v3", TOKEN, "no https:// address"),
        ("file:///etc/passwd", TOKEN, "no https:// address"),
        ("https://api.github.com", "two\nlines", "no token consists of"),
    ],
)
def test_a_token_goes_nowhere_in_the_clear(
    tiergate: Any, monkeypatch: pytest.MonkeyPatch, url: str, token: str, words: str
) -> None:
    monkeypatch.setenv("GITHUB_API_URL", url)
    monkeypatch.setenv("GITHUB_TOKEN", token)
    code, _, err = protect(tiergate)
    assert code == 2
    assert words in err


def test_without_a_token_it_says_where_to_put_one(
    github: GitHub, tiergate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "")
    code, _, err = protect(tiergate)
    assert code == 2
    assert "needs a token: put one into GITHUB_TOKEN or GH_TOKEN" in err


@pytest.mark.parametrize("name", ["octo", "octo/transformer/x", "octo/..", "o c/x", "octo/x?y"])
def test_a_name_that_is_none_is_not_asked_for(github: GitHub, tiergate: Any, name: str) -> None:
    code, _, err = tiergate("protect", name)
    assert code == 2
    assert "write it OWNER/REPO" in err
    assert github.requests == []


def test_a_renamed_repository_is_followed_with_the_token_another_host_without(
    github: GitHub, tiergate: Any
) -> None:
    with serving(GitHub()) as elsewhere:
        github.instead["GET /repos/old/name"] = Answer(
            301, b"{}", {"Location": f"{github.url}/repos/octo/transformer"}
        )
        github.instead["GET /repos/old/thief"] = Answer(
            302, b"{}", {"Location": f"{elsewhere.url}/repos/octo/transformer"}
        )
        code, _, err = tiergate("protect", "old/name", "--yes")
        assert code == 0, err
        assert github.changes == ["POST /repos/octo/transformer/rulesets"]
        code, _, err = tiergate("protect", "old/thief", "--yes")
        assert code == 2
        assert elsewhere.tokens == [""]


def test_a_change_is_never_sent_on_by_a_redirect(github: GitHub, tiergate: Any) -> None:
    github.instead["POST .*"] = Answer(307, b"{}", {"Location": f"{github.url}/elsewhere"})
    code, _, err = protect(tiergate, "--yes")
    assert code == 2
    assert "use the repository's new name" in err
    assert len(github.changes) == 1


def test_the_token_is_in_no_file_that_the_command_leaves(
    github: GitHub, tiergate: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert protect(tiergate, "--yes")[0] == 0
    assert list(tmp_path.iterdir()) == []
