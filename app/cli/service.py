"""Which service a command talks to: the one that runs, or one of its own for the time of the command."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from rich.console import Console

from app.address import local_url
from app.cli.client import Client
from app.cli.output import err
from app.contracts.errors import ErrorCode, HemostatError
from app.instance import read_instance
from app.jobs.parsing import parse_submission
from app.models import looking
from app.settings import Settings
from app.up import running

Json = dict[str, Any]


def api_key() -> str | None:
    """The key of `HEMOSTAT_API_KEY`, if any."""
    return os.environ.get("HEMOSTAT_API_KEY")


@contextmanager
def connect(url: str | None, settings: Settings) -> Iterator[Client]:
    """A client of the service at `url` (default: where the settings say).

    Raises `HemostatError(INVALID_REQUEST)` if `url` is not given and another home's service answers.
    """
    with _client(url, settings) as client:
        if url is None:
            _require_own(client, settings)
        yield client


@contextmanager
def connect_if_up(url: str | None, settings: Settings) -> Iterator[Client | None]:
    """As `connect`; None if `url` is not given and no service is up."""
    with _client(url, settings) as client:
        up = url is not None or client.alive()
    if not up:
        yield None
        return
    with connect(url, settings) as client:
        if url is not None:
            client.require_service()
        yield client


def _client(url: str | None, settings: Settings) -> Client:
    return Client(url or local_url(settings.host, settings.port), api_key=api_key())


def _require_own(client: Client, settings: Settings) -> None:
    ready = client.readiness()
    instance, home = ready.get("instance"), ready.get("home")
    # A service with keys shows neither without a key, and refuses whatever comes next.
    if instance is not None and instance != read_instance(settings.home.expanduser()):
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"the service at {client.url} uses another home: {home}, not {settings.home}",
            hint=f"set HEMOSTAT_HOME or HEMOSTAT_PORT, or name this service with --url {client.url}",
        )
    _say(f"service {client.url}" + (f", home {home}" if home else ""))


@cache
def _say(line: str) -> None:
    """Once in a command."""
    err.print(line, style="dim", markup=False, soft_wrap=True)


@contextmanager
def connect_or_start(url: str | None, settings: Settings, console: Console, request: Json) -> Iterator[Client]:
    """A client of the running service, else of one that is started for the block and ended after it.

    `request` is checked before a service is started for it. Raises `HemostatError(UNAVAILABLE)` when `url` is given and
    no service answers there, and what the API would refuse the request with.
    """
    with connect_if_up(url, settings) as client:
        if client is not None:
            yield client
            return
    submission = parse_submission(json.dumps(request).encode())
    looking.ask_about("check", submission, settings)
    with start(settings, console) as client:
        yield client


@contextmanager
def start(settings: Settings, console: Console) -> Iterator[Client]:
    """A client of a service that is started for the block, on free ports, and ended after it; where that is because of
    Ctrl-C or SIGTERM, it says so."""
    try:
        with ExitStack() as held:
            with console.status("starting a temporary service (Valkey, API, worker) …"):
                service = held.enter_context(running(settings))
            yield held.enter_context(Client(service.url, api_key=api_key(), own=True))
    except KeyboardInterrupt:
        console.print(
            f"interrupted: the temporary service has stopped. Models and finished jobs are kept in {settings.home}. "
            "The same command starts again",
            markup=False,
            soft_wrap=True,
        )
        raise


def report_path(settings: Settings, job_id: str) -> Path:
    """Where the HTML page of a job is put by default."""
    return settings.home / "reports" / f"{job_id}.html"
