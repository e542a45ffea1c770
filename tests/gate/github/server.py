"""GitHub's REST API on this machine: one repository, whose rules and files tests write.

Every request and every answer is validated with GitHub's own description, so that a test cannot
agree with a client about an API that does not exist. The description, ``api.github.com.json``, is
that of the npm package ``@octokit/openapi`` 23.0.2 (MIT licence, © Octokit contributors; see
``api.github.com.LICENSE``), cut to the operations used here, without its prose and examples.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "ghp_0123456789abcdefTOKEN"
ACTIONS = 15368
_URL = "https://api.github.com/x"


@cache
def description() -> Any:
    """Return GitHub's description, ready to validate with."""
    from openapi_core import OpenAPI

    text = (Path(__file__).parent / "api.github.com.json").read_text()
    return OpenAPI.from_dict(json.loads(text))


@dataclass
class Answer:
    """What to answer instead, once or always: a status, or broken bytes."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class GitHub:
    """The state of the server."""

    name: str = "octo/transformer"
    branch: str = "main"
    files: dict[str, str] = field(default_factory=dict)
    rulesets: list[dict[str, Any]] = field(default_factory=list)
    organisation_rules: list[dict[str, Any]] = field(default_factory=list)
    classic: dict[str, Any] | None = None
    owner_errors: list[dict[str, Any]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    """Of commits that were made, behind their branch."""
    runs: list[dict[str, Any]] = field(default_factory=list)
    """Of workflow 9, the latest first, as ``workflow_run`` makes them."""
    comments: list[dict[str, Any]] = field(default_factory=list)
    """On every pull request, as ``comment`` makes them."""
    hide_bypass: bool = False
    cut_tree: bool = False
    instead: dict[str, Answer] = field(default_factory=dict)
    """Answers by ``METHOD PATH`` as a regular expression."""
    requests: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    url: str = ""

    @property
    def changes(self) -> list[str]:
        """The requests that changed something."""
        return [request for request in self.requests if not request.startswith("GET ")]

    def respond(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        """Do what a request asks for; return the status and the answer."""
        repository = f"/repos/{self.name}"
        branch = re.escape(self.branch)
        if path == "/apps/github-actions":
            return 200, _app(ACTIONS)
        if path == repository:
            return 200, _repository(self.name, self.branch)
        if match := re.fullmatch(rf"{repository}/rules/branches/({branch})", path):
            return 200, self._rules()
        if path == f"{repository}/rulesets":
            return self._rulesets(method, body)
        if match := re.fullmatch(rf"{repository}/rulesets/(\d+)", path):
            return self._ruleset(method, int(match[1]), body)
        if path == f"{repository}/branches/{self.branch}/protection":
            return self._protection(method, body)
        if path == f"{repository}/git/trees/{self.branch}":
            tree = [
                {"path": p, "mode": "100644", "type": "blob", "sha": "0" * 40} for p in self.files
            ]
            return 200, {"sha": "0" * 40, "truncated": self.cut_tree, "tree": tree}
        if path.startswith(f"{repository}/actions/"):
            return self._actions(path.removeprefix(f"{repository}/actions/"), query)
        if re.fullmatch(rf"{repository}/issues/\d+/comments", path):
            return self._commented(method, query, body)
        if match := re.fullmatch(rf"{repository}/issues/comments/(\d+)", path):
            found = next(c for c in self.comments if c["id"] == int(match[1]))
            found["body"] = body["body"]
            return 200, found
        if path == f"{repository}/codeowners/errors":
            return 200, {"errors": self.owner_errors}
        return self._contents(method, path.removeprefix(f"{repository}/contents/"), body)

    def _rules(self) -> list[dict[str, Any]]:
        """Return the rules in force: of active rulesets whose conditions hold."""
        rules = list(self.organisation_rules)
        for ruleset in self.rulesets:
            names = ruleset["conditions"]["ref_name"]["include"]
            covered = {"~DEFAULT_BRANCH", "~ALL", f"refs/heads/{self.branch}"} & set(names)
            if ruleset["enforcement"] == "active" and covered:
                about = {
                    "ruleset_source_type": "Repository",
                    "ruleset_source": self.name,
                    "ruleset_id": ruleset["id"],
                }
                rules += [{**rule, **about} for rule in ruleset["rules"]]
        return rules

    def _rulesets(self, method: str, body: Any) -> tuple[int, Any]:
        if method == "GET":
            shown = [{k: v for k, v in r.items() if k != "rules"} for r in self.rulesets]
            return 200, shown
        if any(known["name"] == body["name"] for known in self.rulesets):
            return 422, {**_error("Validation Failed", "422"), "errors": ["Name must be unique"]}
        made = {"id": 40 + len(self.rulesets), **self._about(), **body}
        self.rulesets.append(made)
        return 201, made

    def _ruleset(self, method: str, identity: int, body: Any) -> tuple[int, Any]:
        found = next((r for r in self.rulesets if r["id"] == identity), None)
        if found is None:
            return 404, _error("Not Found", "404")
        if method == "PUT":
            found.update(body)
        hidden = {"bypass_actors"} if self.hide_bypass else set()
        return 200, {k: v for k, v in found.items() if k not in hidden}

    def _contents(self, method: str, name: str, body: Any) -> tuple[int, Any]:
        known = self.files.get(name)
        if method == "GET":
            found = _error("Not Found", "404") if known is None else _file(name, known)
            return (404 if known is None else 200), found
        if body.get("sha", "") != ("" if known is None else _version(known)):
            return 409, _error(f"{name} does not match {body.get('sha')}", "409")
        self.files[name] = base64.b64decode(body["content"]).decode()
        self.messages.append(f"{body['branch']}: {body['message']}")
        commit = _filled("file-commit", {})["commit"]
        made = {"content": _file(name, self.files[name]), "commit": commit}
        return (201 if known is None else 200), made

    def _actions(self, path: str, query: dict[str, str]) -> tuple[int, Any]:
        if path == "runs/1":
            return 200, workflow_run(1, "pull_request", "topic", "")
        if path != "workflows/9/runs":
            return 404, _error("Not Found", "404")
        wanted = {"head_branch": query["branch"], "event": query["event"]}
        found = [run for run in self.runs if all(run[k] == v for k, v in wanted.items())]
        found = [run for run in found if query["status"] in {run["status"], run["conclusion"]}]
        page = found[: int(query["per_page"])]
        return 200, {"total_count": len(found), "workflow_runs": page}

    def _commented(self, method: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        if method == "POST":
            self.comments.append(comment(len(self.comments) + 1, "github-actions[bot]", **body))
            return 201, self.comments[-1]
        size = int(query.get("per_page", 30))
        start = (int(query.get("page", 1)) - 1) * size
        return 200, self.comments[start : start + size]

    def _about(self) -> dict[str, Any]:
        return {"source_type": "Repository", "source": self.name, "node_id": "RRS_x"}

    def _protection(self, method: str, body: Any) -> tuple[int, Any]:
        if method == "PUT":
            self.classic = protection(body)
        if self.classic is None:
            return 404, _error("Branch not protected", "404")
        return 200, self.classic


def protection(body: dict[str, Any]) -> dict[str, Any]:
    """Return a classic protection as GitHub shows it, from the request that makes it."""
    shown: dict[str, Any] = {"url": _URL}
    if checks := body["required_status_checks"]:
        known = [{"context": c["context"], "app_id": c["app_id"]} for c in checks["checks"]]
        for check in known:
            check["app_id"] = None if check["app_id"] == -1 else check["app_id"]
        shown["required_status_checks"] = {
            "url": _URL,
            "strict": checks["strict"],
            "contexts": [c["context"] for c in known],
            "contexts_url": _URL,
            "checks": known,
        }
    shown["enforce_admins"] = {"url": _URL, "enabled": bool(body["enforce_admins"])}
    if reviews := body["required_pull_request_reviews"]:
        shown["required_pull_request_reviews"] = {"url": _URL, **reviews}
        for name in ("dismissal_restrictions", "bypass_pull_request_allowances"):
            if name in reviews:
                shown["required_pull_request_reviews"][name] = _actors(reviews[name])
    if restrictions := body["restrictions"]:
        shown["restrictions"] = _actors(restrictions)
    known_keys = {"required_status_checks", "enforce_admins", "required_pull_request_reviews"}
    for name in set(body) - known_keys - {"restrictions"}:
        shown[name] = {"enabled": body[name]}
    return shown


def _actors(lists: dict[str, list[str]]) -> dict[str, Any]:
    urls = dict.fromkeys(("url", "users_url", "teams_url", "apps_url"), _URL)
    return {
        **urls,
        "users": [_user(name) for name in lists["users"]],
        "teams": [_team(name) for name in lists["teams"]],
        "apps": [{**_app(7), "slug": name} for name in lists["apps"]],
    }


def _filled(schema: str, known: dict[str, Any]) -> dict[str, Any]:
    """Return an object of the description with everything that it demands, and ``known``."""
    document = json.loads((Path(__file__).parent / "api.github.com.json").read_text())

    def example(about: dict[str, Any]) -> Any:
        while "$ref" in about:
            about = document["components"]["schemas"][about["$ref"].rpartition("/")[2]]
        if about.get("nullable") and about.get("type") == "object":
            return None
        if "enum" in about:
            return about["enum"][0]
        for several in ("oneOf", "anyOf", "allOf"):
            if several in about:
                return example(about[several][0])
        match about.get("type"):
            case "object":
                return {k: example(about["properties"][k]) for k in about.get("required", [])}
            case "array":
                return []
            case "integer" | "number":
                return 1
            case "boolean":
                return False
        return {"uri": _URL, "date-time": "2026-01-01T00:00:00Z"}.get(about.get("format", ""), "x")

    wanted = {**document["components"]["schemas"][schema], "nullable": False}
    return {**example(wanted), **known}


@cache
def _repository_text(name: str, branch: str) -> str:
    return json.dumps(_filled("full-repository", {"full_name": name, "default_branch": branch}))


def _repository(name: str, branch: str) -> Any:
    return json.loads(_repository_text(name, branch))


def _app(identity: int) -> dict[str, Any]:
    return _filled("integration", {"id": identity, "slug": "github-actions"})


def workflow_run(identity: int, event: str, branch: str, conclusion: str) -> dict[str, Any]:
    """Return a run; one that goes on has no conclusion."""
    ended = {"status": "completed", "conclusion": conclusion} if conclusion else {}
    known = {"id": identity, "workflow_id": 9, "event": event, "head_branch": branch, **ended}
    return _filled("workflow-run", known)


def comment(identity: int, login: str, body: str) -> dict[str, Any]:
    """Return a comment of somebody."""
    return {**_filled("issue-comment", {}), "id": identity, "user": _user(login), "body": body}


def _user(login: str) -> dict[str, Any]:
    return _filled("simple-user", {"login": login})


def _team(slug: str) -> dict[str, Any]:
    return _filled("team", {"slug": slug, "parent": None})


def _version(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()


def _file(path: str, text: str) -> dict[str, Any]:
    content = base64.encodebytes(text.encode()).decode()
    known = {"type": "file", "encoding": "base64", "path": path, "content": content}
    known["sha"] = _version(text)
    return _filled("content-file", known)


def _error(message: str, status: str) -> dict[str, Any]:
    return {"message": message, "documentation_url": "https://docs.github.com", "status": status}


@contextmanager
def serving(github: GitHub) -> Iterator[GitHub]:
    """Serve until the end; whatever broke the API's description is in ``github.problems``."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = urlsplit(self.path)
            path, query = unquote(asked.path), {k: v[0] for k, v in parse_qs(asked.query).items()}
            github.requests.append(f"{self.command} {path}")
            github.tokens.append(self.headers.get("Authorization") or "")
            for pattern, other in github.instead.items():
                if re.fullmatch(pattern, f"{self.command} {path}"):
                    self.reply(other.status, other.body, other.headers)
                    return
            problem = _validated(self, asked.path, query, data)
            if problem:
                github.problems.append(problem)
                self.reply(422, json.dumps(_error(problem, "422")).encode(), {})
                return
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self.reply(401, json.dumps(_error("Bad credentials", "401")).encode(), {})
                return
            status, body = github.respond(
                self.command, path, query, json.loads(data) if data else None
            )
            text = json.dumps(body).encode()
            if problem := _validated(self, asked.path, query, data, status, text):
                github.problems.append(problem)
            self.reply(status, text, {})

        do_GET = do_POST = do_PUT = do_PATCH = answer  # noqa: N815 - as the server calls them

        def reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            standard = {"Content-Type": "application/json", "Content-Length": str(len(body))}
            for name, value in {**standard, **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            github.problems.append(traceback.format_exc())

    server = Server(("127.0.0.1", 0), Handler)
    github.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield github
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert not github.problems, "\n".join(github.problems)


def _validated(
    handler: BaseHTTPRequestHandler,
    path: str,
    query: dict[str, str],
    data: bytes,
    status: int = 0,
    answer: bytes = b"",
) -> str:
    """Return how a request, or its answer, breaks the description; empty where it does not."""
    from openapi_core.exceptions import OpenAPIError
    from openapi_core.testing import MockRequest, MockResponse

    # A description's parameter is one segment, a file's path may be several.
    if match := re.fullmatch(r"(/repos/[^/]+/[^/]+/contents/)(.+)", path):
        path = match[1] + match[2].replace("/", "%2F")
    request = MockRequest(
        "https://api.github.com",
        handler.command.lower(),
        path,
        args=query,
        headers=dict(handler.headers),
        data=data or None,
        content_type="application/json",
    )
    try:
        if status:
            response = MockResponse(answer, status, content_type="application/json")
            description().validate_response(request, response)
        else:
            description().validate_request(request)
    except OpenAPIError as error:
        causes = getattr(error.__cause__, "schema_errors", [error.__cause__])
        told = "; ".join(f"{getattr(e, 'absolute_path', '')} {e}" for e in causes)
        return f"{handler.command} {path}: {error}: {told}"[-600:]
    return ""
