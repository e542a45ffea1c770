"""Requests to GitHub's REST API over the standard library; every failure is one clear sentence."""

from __future__ import annotations

import json
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from email.message import Message
from http.client import HTTPException
from typing import IO, Any

from tiergate.errors import NotEvaluatedError, UserError
from tiergate.render.text import one_line

API = "https://api.github.com"
TOKEN_VARIABLES = ("GITHUB_TOKEN", "GH_TOKEN")
_TIMEOUT = 30.0
_LIMIT = 64 * 1024 * 1024
_PAGE = 100
_SHOWN = 500
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_ADMINISTRATION = "'Administration' of the repository (read to look, write to change)"
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


class RefusedError(UserError):
    """GitHub understood the request and refused it: the caller can mend that; exit code 2."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class UnreachableError(NotEvaluatedError):
    """GitHub could not be asked, or gave no usable answer; exit code 3."""


class Client:
    """Speaks to the API of github.com, or of the server that ``GITHUB_API_URL`` names.

    Args:
        environment: where the API's address and the token stand. The token goes to that host
            only, and into no message.
        permission: what a token needs that GitHub refuses, in words.

    Raises:
        UserError: the address is none that a token may be sent to.
    """

    def __init__(
        self, environment: Mapping[str, str] = os.environ, *, permission: str = _ADMINISTRATION
    ) -> None:
        self._permission = permission
        self.base = (environment.get("GITHUB_API_URL") or API).rstrip("/")
        address = urllib.parse.urlsplit(self.base)
        if address.scheme != "https" and not (
            address.scheme == "http" and address.hostname in _LOOPBACK
        ):
            raise UserError(
                f"GITHUB_API_URL: {one_line(self.base)} is no https:// address; on GitHub "
                "Enterprise Server it is https://HOST/api/v3"
            )
        found = (environment.get(name, "").strip() for name in TOKEN_VARIABLES)
        self._token = next((token for token in found if token), "")
        if not self._token.isprintable() or not self._token.isascii():
            raise UserError(f"{' or '.join(TOKEN_VARIABLES)}: holds what no token consists of")
        self._opener = urllib.request.build_opener(_Redirects(address.netloc))

    def get(self, path: str, **query: str | int) -> Any:
        """Return what is at ``path``, such as ``/repos/o/r``."""
        asked = urllib.parse.urlencode(query)
        return self._request("GET", f"{path}?{asked}" if asked else path)

    def find(self, path: str, **query: str | int) -> Any | None:
        """Return what is at ``path``, or None where GitHub says that there is nothing."""
        try:
            return self.get(path, **query)
        except RefusedError as error:
            if error.status != 404:
                raise
            return None

    def pages(self, path: str, **query: str | int) -> list[Any]:
        """Return the items of all pages of a list."""
        items: list[Any] = []
        for page in range(1, 101):
            more = self.get(path, **query, per_page=_PAGE, page=page)
            if not isinstance(more, list):
                raise UnreachableError(f"GET {path}: GitHub's answer is not a list")
            items += more
            if len(more) < _PAGE:
                return items
        raise UnreachableError(f"GET {path}: more than {100 * _PAGE} entries")

    def send(self, method: str, path: str, body: object) -> Any:
        """Send ``body`` as JSON and return the answer."""
        return self._request(method, path, json.dumps(body).encode())

    def _request(self, method: str, path: str, body: bytes | None = None) -> Any:
        what = f"{method} {path}"
        request = urllib.request.Request(self.base + path, data=body, method=method)  # noqa: S310
        request.add_header("Accept", "application/vnd.github+json")
        request.add_header("X-GitHub-Api-Version", "2022-11-28")
        request.add_header("User-Agent", "tiergate")
        if body is not None:
            request.add_header("Content-Type", "application/json")
        if self._token:
            request.add_header("Authorization", f"Bearer {self._token}")
        try:
            with self._opener.open(request, timeout=_TIMEOUT) as answer:
                data = answer.read(_LIMIT + 1)
                cut_short = bool(answer.length) and len(data) <= _LIMIT
        except urllib.error.HTTPError as error:
            raise self._refusal(what, error) from None
        except TimeoutError:
            raise UnreachableError(
                f"{what}: no answer from {self.base} within {_TIMEOUT:g} s; try again"
            ) from None
        except urllib.error.URLError as error:
            raise self._unreachable(what, error.reason) from None
        except (OSError, HTTPException, ValueError) as error:  # the latter for a bad address
            raise self._unreachable(what, error) from None
        if cut_short:
            raise self._unreachable(what, "the answer was cut short")
        if len(data) > _LIMIT:
            raise UnreachableError(f"{what}: the answer is larger than {_LIMIT} bytes")
        try:
            return json.loads(data)
        except ValueError:
            raise UnreachableError(
                f"{what}: the answer of {self.base} is not JSON; is GITHUB_API_URL right?"
            ) from None

    def _unreachable(self, what: str, reason: object) -> UnreachableError:
        if isinstance(reason, TimeoutError):
            return UnreachableError(
                f"{what}: {self.base} does not answer within {_TIMEOUT:g} s; try again"
            )
        return UnreachableError(
            f"{what}: cannot reach {self.base}: {self._clean(str(reason))}; check the network and, "
            "behind a proxy, HTTPS_PROXY"
        )

    def _refusal(self, what: str, error: urllib.error.HTTPError) -> UserError:
        with error:
            data = error.read(_SHOWN * 20)
        said = self._clean(_message(data))
        headers, status = error.headers, error.code
        if wait := _rate_limit(status, headers, said):
            return UnreachableError(f"{what}: {wait}")
        if 300 <= status < 400:
            place = self._clean(headers.get("Location", "somewhere else"))
            return RefusedError(status, f"{what}: moved to {place}; use the repository's new name")
        if status >= 500:
            return UnreachableError(f"{what}: GitHub has a problem ({status} {said}); try again")
        match status:
            case 401:
                names = " or ".join(TOKEN_VARIABLES)
                advice = (
                    f"the token in {names} is wrong, expired or revoked"
                    if self._token
                    else f"needs a token: put one into {names}"
                )
            case 403:
                advice = (
                    f"the token may not do this: it needs the permission {self._permission}; where "
                    "the organisation has single sign-on, it must be authorised for it"
                )
            case 404:
                advice = (
                    "there is no such thing, or the token may not see it: check the name, and that "
                    "the token covers the repository"
                )
                if not self._token:
                    advice += f"; a private one needs a token in {' or '.join(TOKEN_VARIABLES)}"
            case 422:
                advice = "GitHub does not accept the request"
            case _:
                advice = "GitHub refused"
        return RefusedError(status, f"{what}: {advice} ({status} {said})")

    def _clean(self, text: str) -> str:
        """Make what a server said harmless, and take the token out if it echoes it."""
        if self._token:
            text = text.replace(self._token, "***")
        return one_line(text)[:_SHOWN]


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a repository that was renamed, for reading; the token stays with its host."""

    def __init__(self, host: str) -> None:
        self._host = host

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Message,
        newurl: str,
    ) -> urllib.request.Request | None:
        if req.get_method() != "GET":
            return None  # the refusal says where it moved
        new = super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]
        old, address = urllib.parse.urlsplit(req.full_url), urllib.parse.urlsplit(newurl)
        same = (address.scheme, address.netloc) == (old.scheme, self._host)
        if new is not None and not same:
            new.remove_header("Authorization")
        return new


@contextmanager
def understood() -> Iterator[None]:
    """Turn an answer of another shape than the API's into a clear end.

    Raises:
        UnreachableError: the code within did not find what the API promises.
    """
    try:
        yield
    except (KeyError, TypeError, AttributeError) as error:
        raise UnreachableError(
            f"GitHub's answer is not as its API describes ({type(error).__name__}: {error}); is "
            "GITHUB_API_URL right?"
        ) from error


def repository_name(text: str) -> str:
    """Return ``OWNER/REPO``, checked.

    Raises:
        UserError: it is none.
    """
    if not _REPOSITORY.fullmatch(text) or {".", ".."} & set(text.split("/")):
        raise UserError(f"{one_line(text)}: write it OWNER/REPO, such as octo/transformer")
    return text


def _message(data: bytes) -> str:
    """Return what GitHub says in an error's body, its details with it."""
    try:
        body = json.loads(data)
    except ValueError:
        return ""
    if not isinstance(body, dict):
        return ""
    details = body.get("errors") or []
    texts = [str(body.get("message", ""))]
    for detail in details if isinstance(details, list) else [details]:
        if isinstance(detail, dict):
            parts = (detail.get(key) for key in ("resource", "field", "code", "message"))
            texts.append(" ".join(str(part) for part in parts if part))
        else:
            texts.append(str(detail))
    return "; ".join(text for text in texts if text)


def _rate_limit(status: int, headers: Message, said: str) -> str:
    """Say which rate limit was met and when it ends; empty where none was."""
    if status not in {403, 429}:
        return ""
    after, reset = headers.get("Retry-After", ""), headers.get("X-RateLimit-Reset", "")
    if headers.get("X-RateLimit-Remaining") == "0" and reset.isdecimal() and len(reset) < 12:
        when = datetime.fromtimestamp(int(reset), timezone.utc)
        return f"the token's rate limit is used up; run it again after {when:%H:%M:%S} UTC"
    if status == 429 or after or "secondary rate limit" in said.lower():
        seconds = after if after.isdecimal() else "60"
        return f"GitHub asks to slow down (secondary rate limit); run it again in {seconds} s"
    return ""
