"""HTTP client of the command line: submits, watches and reads jobs of a running service."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

import httpx
from httpx_sse import ServerSentEvent, connect_sse

from app.commands.finite import require_json
from app.contracts.errors import CATALOGUE, ErrorCode, HemostatError
from app.security.keys import is_loopback

TERMINAL = frozenset({"succeeded", "failed", "cancelled"})
Json = dict[str, Any]

# How long a watched service may be away (restarting, Redis away) before watching gives up.
_PATIENCE_S = 120.0
# How long an answer may take: what a request names is looked into before it is taken.
_ANSWER_S = 60.0
# Before it connects again where a service that shuts down ended the stream, and still answers.
_AGAIN_S = 0.2
_USER: Final = re.compile(r"(?<=//)[^/]*@")  # of an address
# How to find out whether a service has done what it did not answer, by the part of the API.
_TAKEN: Final = {
    "diagnosis": ("hemostat jobs list", "shows the jobs that it has taken"),
    "deployments": ("hemostat deploy list", "shows the deployments"),
}


class _EndedError(Exception):
    """Nothing will follow what the client has."""


class Client:
    """Talks to one service. Every method raises `HemostatError` with the service's own code, detail and hint."""

    def __init__(self, url: str, *, api_key: str | None = None, own: bool = False) -> None:
        """`own`: the service ends with the command that asks.

        Raises `HemostatError(INVALID_REQUEST)` for what is no address, and for what can be no key.
        """
        self.url = (url if "://" in url else f"http://{url}").rstrip("/")
        self._own = own
        self._http = httpx.Client(
            base_url=self.url,
            headers=_authorization(api_key),
            timeout=httpx.Timeout(_ANSWER_S, connect=5),
            trust_env=not is_loopback(_host(self.url)),  # no proxy is before this machine
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def alive(self) -> bool:
        """Whether a Hemostat service answers."""
        try:
            return self._http.get("/livez", timeout=2).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def require_service(self) -> None:
        """Raises `HemostatError(UNAVAILABLE)` with what is in a service's place where none is `alive`."""
        if not self.alive():
            self._json("GET", "/livez")

    def readiness(self) -> Json:
        """What `/readyz` says, also of a service that is not ready. Raises `HemostatError(UNAVAILABLE)` without one."""
        with self._told("GET", "/readyz"):
            response = self._http.get("/readyz")
        if response.status_code not in {httpx.codes.OK, httpx.codes.SERVICE_UNAVAILABLE}:
            _raise(response)
        return _object(response)

    def afterwards(self, command: str) -> str:
        """A command to give once this one has ended. If its own service has ended with it, `hemostat up` starts
        another one on the same home first."""
        return f"`hemostat up`, then `{command}`" if self._own else f"`{command}`"

    def submit(self, request: Json) -> Json:
        """Submits a job (or, with `dry_run`, estimates it)."""
        return self._json("POST", "/v1/diagnosis/jobs", json=request)

    def job(self, job_id: str) -> Json:
        """One job."""
        return self._json("GET", _job(job_id))

    def queue(self, job_id: str) -> Json:
        """What a queued job waits for."""
        return self._json("GET", _job(job_id, "queue"))

    def jobs(self, **filters: Any) -> Json:
        """A page of jobs, newest first."""
        return self._json("GET", "/v1/diagnosis/jobs", params={k: v for k, v in filters.items() if v is not None})

    def cancel(self, job_id: str) -> Json:
        """Asks for a job to be stopped."""
        return self._json("POST", _job(job_id, "cancel"))

    def report(self, job_id: str) -> Json:
        """The report as JSON."""
        return self._json("GET", _job(job_id, "report"), headers={"Accept": "application/json"})

    def report_html(self, job_id: str) -> str:
        """The report as a self-contained page."""
        return self._send("GET", _job(job_id, "report"), params={"format": "html"}).text

    def artifact(self, job_id: str, name: str) -> bytes:
        """A file that a job left beside its report."""
        return self._send("GET", _job(job_id, f"artifacts/{quote(name, safe='')}")).content

    def artifacts(self, job_id: str) -> Json:
        """The list of these files."""
        return self._json("GET", _job(job_id, "artifacts"))

    def save_artifact(self, job_id: str, name: str, destination: Path) -> None:
        """Writes such a file piece by piece: a checkpoint need not fit into memory. Raises OSError if it cannot."""
        path = _job(job_id, f"artifacts/{quote(name, safe='')}")
        with self._told("GET", path), self._http.stream("GET", path) as response:
            if not response.is_success:
                response.read()
                _raise(response)
            with destination.open("wb") as file:
                for piece in response.iter_bytes():
                    file.write(piece)

    def profiles(self) -> Json:
        """All calibration profiles, newest first."""
        return self._json("GET", "/v1/calibration/profiles")

    def profile(self, version: str) -> Json:
        """One calibration profile."""
        return self._json("GET", f"/v1/calibration/profiles/{quote(version, safe='')}")

    def delete_profile(self, version: str) -> None:
        """Deletes a calibration profile."""
        self._send("DELETE", f"/v1/calibration/profiles/{quote(version, safe='')}")

    def call(self, method: str, path: str, **options: Any) -> Json:
        """Any other route; {} where it answers nothing."""
        response = self._send(method, path, **options)
        return _object(response) if response.content else {}

    def follow(self, path: str, after: int) -> Iterator[tuple[str, Json]]:
        """Events (number, data) of a deployment, until it is deleted; taken up again where the connection broke."""
        for event in self._resumed(path, str(after) if after else None):
            yield event.id, json.loads(event.data)
            if event.event == "deleted":
                return

    def watch(self, job_id: str, away: Callable[[bool], None] | None = None) -> Iterator[tuple[str, Json]]:
        """Events (name, data) until the job ends; a lost connection is taken up again where it broke off.

        `away` is called with True if the service stops answering, and with False if it answers again.
        """
        for event in self._resumed(_job(job_id, "events"), None, away):
            yield event.event, json.loads(event.data)
            if event.event == "end":
                return

    def _resumed(
        self, path: str, last_id: str | None, away: Callable[[bool], None] | None = None
    ) -> Iterator[ServerSentEvent]:
        gone_since: float | None = None
        while True:
            try:
                for event in self._events(path, last_id):
                    if gone_since is not None and away is not None:
                        away(False)
                    gone_since = None
                    last_id = event.id or last_id
                    if event.data:  # else the hint how long to wait before connecting again
                        yield event
                time.sleep(_AGAIN_S)
            except _EndedError:
                return
            except (httpx.TransportError, HemostatError) as error:
                if isinstance(error, HemostatError) and error.code is not ErrorCode.UNAVAILABLE:
                    raise
                if gone_since is None and away is not None:
                    away(True)
                gone_since = gone_since or time.monotonic()
                if time.monotonic() - gone_since > _PATIENCE_S:
                    raise HemostatError(
                        ErrorCode.UNAVAILABLE,
                        f"{_shown(self.url)} has not answered for {_PATIENCE_S:.0f} s while {path} was followed",
                        hint="the job or deployment continues; follow it again later",
                    ) from error
                time.sleep(1)

    def _events(self, path: str, last_id: str | None) -> Iterator[ServerSentEvent]:
        headers = {"Last-Event-ID": last_id} if last_id else {}
        with connect_sse(self._http, "GET", path, headers=headers, timeout=httpx.Timeout(60, connect=5)) as source:
            if not source.response.is_success:
                source.response.read()
                _raise(source.response)
            if source.response.status_code == httpx.codes.NO_CONTENT:
                raise _EndedError
            yield from source.iter_sse()

    def _json(self, method: str, path: str, **options: Any) -> Json:
        return _object(self._send(method, path, **options))

    def _send(self, method: str, path: str, *, json: Any = None, **options: Any) -> httpx.Response:
        if json is not None:
            options |= {"content": _body(json), "headers": {"Content-Type": "application/json"}}
        with self._told(method, path):
            response = self._http.request(method, path, **options)
        if not response.is_success:
            _raise(response)
        return response

    def _taken(self, part: str) -> str:
        if part not in _TAKEN:
            return "check whether it was done before you ask again"
        command, shows = _TAKEN[part]
        return f"{self.afterwards(command)} {shows}"

    @contextmanager
    def _told(self, method: str, path: str) -> Iterator[None]:
        """Raises UNAVAILABLE, which says what to do, for every way in which a service does not answer."""
        try:
            yield
        except (httpx.ReadTimeout, httpx.WriteTimeout) as error:
            asked = method != "GET"
            raise HemostatError(
                ErrorCode.UNAVAILABLE,
                f"{_shown(self.url)} did not answer within {_ANSWER_S:.0f} s"
                + (", but may still process the request" if asked else ""),
                hint=self._taken(path.split("/")[2])
                if asked
                else "ask again; `hemostat doctor` and the service's logs show the reason",
            ) from error
        except httpx.TransportError as error:
            raise HemostatError(
                ErrorCode.UNAVAILABLE,
                f"no service answers at {_shown(self.url)}: {error}",
                hint="start one with `hemostat up`, or give its address with --url",
            ) from error
        except httpx.DecodingError as error:
            raise _foreign(self.url, f"answered with a body that does not match its headers ({error})") from error


def _host(url: str) -> str:
    """Raises INVALID_REQUEST if no service can be at `url`."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise _no_address(url, str(error)) from error
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise _no_address(url, "it does not begin with http:// or https:// and a host")
    return parsed.host


def _no_address(url: str, why: str) -> HemostatError:
    return HemostatError(
        ErrorCode.INVALID_REQUEST,
        f"{_shown(url)} is not an address: {why}",
        hint="give an address such as --url http://127.0.0.1:8321",
    )


def _authorization(key: str | None) -> dict[str, str]:
    """The header for a key, without the end of line that one read from a file brings. Raises INVALID_REQUEST, which
    does not show it, for what no header can hold."""
    given = (key or "").strip()
    if not given:
        return {}
    if not (given.isascii() and given.isprintable()):
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            "HEMOSTAT_API_KEY has characters that no key has",
            hint="a key is printable ASCII, in one line",
        )
    return {"Authorization": f"Bearer {given}"}


def _object(response: httpx.Response) -> Json:
    """The answer. Raises UNAVAILABLE if it is not one that a service gives."""
    try:
        body = response.json()
    except ValueError as error:
        raise _stranger(response) from error
    if not isinstance(body, dict):
        raise _stranger(response)
    return body


def _body(request: Json) -> bytes:
    """As it is sent: UTF-8, since what a service takes is limited in bytes and an escape has up to three times as many.
    A lone surrogate stays escaped, so that the service can refuse it by its place. Raises INVALID_JSON for a number
    that JSON has not."""
    require_json(request)
    return json.dumps(request, ensure_ascii=False).encode("utf-8", errors="backslashreplace")


def _job(job_id: str, what: str = "") -> str:
    if "/" in job_id:  # a service would read another route out of it
        raise HemostatError(
            ErrorCode.JOB_NOT_FOUND,
            f"{job_id[:64]!r} is not a job's id",
            hint="`hemostat jobs list` shows the ids of jobs",
        )
    path = f"/v1/diagnosis/jobs/{quote(job_id, safe='')}"
    return f"{path}/{what}" if what else path


def _raise(response: httpx.Response) -> None:
    """The service's problem details as an exception; anything else that answers is named for what it is."""
    try:
        problem: Json = response.json()
        code = ErrorCode(problem["code"])
    except (ValueError, KeyError, TypeError) as error:
        raise _stranger(response) from error
    raise HemostatError(
        code,
        str(problem.get("detail") or CATALOGUE[code].title),
        hint=str(problem.get("hint") or ""),
        pointer=str(problem.get("pointer") or ""),
    )


def _stranger(response: httpx.Response) -> HemostatError:
    """What answers is no service, or leads to one that is elsewhere: a redirection is not followed, since it would
    take the key along."""
    leads = response.headers.get("Location") if response.is_redirect else None
    url = str(response.request.url)
    if not leads:
        return _foreign(url, f"answered {response.status_code}, but not as a Hemostat service")
    return HemostatError(
        ErrorCode.UNAVAILABLE,
        f"{_shown(url)} answered {response.status_code}, but not as a Hemostat service: it redirects to {leads}",
        hint="give the service's own address with --url",
    )


def _foreign(url: str, what: str) -> HemostatError:
    return HemostatError(
        ErrorCode.UNAVAILABLE,
        f"{_shown(url)} {what}",
        hint="another program may listen there: give the service's address with --url",
    )


def _shown(url: str) -> str:
    """An address without the name and password that it may hold."""
    return _USER.sub("…@", url)
