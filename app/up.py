"""The whole service on one machine: Valkey (the embedded one, unless a URL is set), API, one worker, serving agent.

`run_up` holds it in the foreground; `running` holds it for the time of a block.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from redis.exceptions import RedisError
from rich.console import Console

from app.address import local_url
from app.contracts.deployment import DeploymentRequest
from app.contracts.errors import ErrorCode, HemostatError
from app.deployments.announce import Announcement
from app.deployments.devices import own_host
from app.deployments.placement import check_one_fits
from app.jobs.connection import connect
from app.jobs.embedded import EmbeddedValkey, EmbeddedValkeyError, ValkeySilentError
from app.jobs.workers import living
from app.secrets import hide_memory
from app.security.keys import KeyFileError, check_binding
from app.settings import Settings
from app.supervisor import (
    DIRECT,
    MARGIN_S,
    TEND_S,
    Interruptions,
    Program,
    Supervisor,
    api_program,
    environment_of,
    status_of,
)

logger = logging.getLogger(__name__)

POLL_S: Final = 0.1
SILENT_S: Final = 5.0  # between questions to a Valkey that does not answer
# A command's own worker has nothing to finish once the command has its answer.
ONE_SHOT_DRAIN_S: Final = 1.0


@dataclass(frozen=True)
class Service:
    """A service that is up."""

    url: str
    worker_metrics_url: str
    settings: Settings


def run_up(
    settings: Settings,
    *,
    ready: Callable[[Service], None] | None = None,
    quiet: bool = False,
    worker_arguments: Sequence[str] = (),
    agent_arguments: Sequence[str] = (),
    deployment: DeploymentRequest | None = None,
    phases: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """Runs the service until SIGINT or SIGTERM; `ready` is called once, when it takes jobs. Answers the exit status.

    `deployment` is made unless it is there, and what happens to it is reported, a fit's phases by the names of
    `phases`.

    The first signal lets the running job finish (at most `drain_s`), the second gives it back to the queue at once.
    Raises `HemostatError` when the service cannot be started.
    """
    console = Console(stderr=True, quiet=quiet, highlight=False)
    with Interruptions() as interruptions:
        with _up(settings, _say(console), worker_arguments, agent_arguments) as parts:
            parts.interruptions = interruptions
            service = parts.wait_until_ready(interruptions)
            if service is not None:
                _greet(console, service, parts)
                if ready is not None:
                    ready(service)
                told = Announcement(parts.settings, deployment, console, phases) if deployment is not None else None
                _hold(parts, told)
                console.print(
                    f"stopping; running requests and jobs get up to {settings.drain_s:g} s (Ctrl-C again: requests end "
                    "now, and jobs return to the queue)"
                )
        heir = "another service" if parts.home_is_served else "`hemostat up`"
        console.print(
            f"The service has stopped. Jobs, deployments and models are kept; {heir} on {settings.home} continues "
            "them.",
            markup=False,
            soft_wrap=True,
        )
    return 0


def _greet(console: Console, service: Service, parts: _Parts) -> None:
    console.print(f"[bold]Hemostat is up[/] at {service.url}")
    if parts.shares_home:
        console.print(f"  another service runs on {parts.settings.home}: both take jobs from the same queue")
    console.print(f"  worker metrics: {service.worker_metrics_url}")
    console.print(f"  logs: {parts.logs}")
    console.print("Ctrl-C stops everything.")


def _hold(parts: _Parts, told: Announcement | None) -> None:
    if told is not None:
        told.begin()
    while not parts.interruptions.count:
        parts.tend()
        if told is not None:
            told.poll()
        _sleep(TEND_S, parts.interruptions)
    if told is not None:
        told.end()


@contextmanager
def running(settings: Settings, *, worker_arguments: Sequence[str] = ()) -> Iterator[Service]:
    """A service of one's own on free ports, over the same home, for the time of the block.

    What crashes is started again. Leave the block from the thread that entered it, the main thread. Raises
    `HemostatError` when the service cannot be started.
    """
    own = settings.model_copy(
        update={"port": 0, "worker_metrics_port": 0, "drain_s": min(settings.drain_s, ONE_SHOT_DRAIN_S)}
    )
    with _up(own, logger.warning, worker_arguments) as parts:
        service = parts.wait_until_ready(Interruptions(), must_be_ready=True)
        assert service is not None  # noqa: S101 - nothing is interrupted before the block below: Ctrl-C raises
        ended = threading.Event()
        tending = threading.Thread(target=parts.tend_until, args=(ended,), name="tend", daemon=True)
        tending.start()
        try:
            yield service
        finally:
            ended.set()
            tending.join()


class _Parts:
    """Valkey, API, worker and, unless its arguments are None, agent of one run."""

    def __init__(
        self,
        settings: Settings,
        say: Callable[[str], None],
        worker_arguments: Sequence[str],
        agent_arguments: Sequence[str] | None = None,
    ) -> None:
        self.settings = settings
        self.logs = settings.home / "logs"
        self._say = say
        self._valkey = EmbeddedValkey(settings) if settings.redis_url is None else None
        self._valkey_due = 0.0
        self._valkey_silent = False
        self.interruptions = Interruptions()  # while it runs: the first one ends it, those beyond hurry
        environment = environment_of(settings)
        self.api = api_program(settings, self.logs / "api.log")
        self.worker = Program("worker", ("workers.main", *worker_arguments), environment, self.logs / "worker.log")
        self.agent = (
            Program("agent", ("app.deployments.agent", *agent_arguments), environment, self.logs / "agent.log")
            if agent_arguments is not None
            else None
        )
        programs = [self.api, self.worker, *([self.agent] if self.agent is not None else [])]
        self.supervisor = Supervisor(programs, say)

    def start(self) -> None:
        if self._valkey is not None:
            try:
                self._valkey.start()
            except EmbeddedValkeyError as error:
                raise HemostatError(
                    ErrorCode.UNAVAILABLE, str(error), hint="set HEMOSTAT_REDIS_URL to your own server"
                ) from error
        self.supervisor.start()

    def tend(self) -> None:
        """Starts again what has ended; from the main thread, Valkey too."""
        if self._valkey is not None and time.monotonic() >= self._valkey_due:
            self._tend_valkey(self._valkey)
        self.supervisor.tend()

    @property
    def shares_home(self) -> bool:
        """Whether the embedded Valkey was found running: another service of this home started it."""
        return self._valkey is not None and not self._valkey.owned

    @property
    def home_is_served(self) -> bool:
        """Whether an embedded Valkey of this home answers: once this run has stopped its own, another service's."""
        return self._valkey is not None and self._valkey.answers

    def _tend_valkey(self, valkey: EmbeddedValkey) -> None:
        before = valkey.pid
        try:
            valkey.start()
        except ValkeySilentError as error:
            self._valkey_due = time.monotonic() + SILENT_S
            if not self._valkey_silent:
                self._say(f"{error} Nothing is lost: requests get 503 until it does, and the running job goes on")
            self._valkey_silent = True
            return
        except EmbeddedValkeyError as error:
            self._valkey_due = time.monotonic() + 10
            self._say(f"Valkey does not start: {error}")
            return
        if valkey.pid != before and valkey.pid is not None:
            self._say("Valkey had ended; it is started again")
        elif self._valkey_silent:
            self._say("Valkey answers again")
        self._valkey_silent = False

    def tend_until(self, ended: threading.Event) -> None:
        """Tends API and worker off the main thread, where Valkey cannot be started."""
        while not ended.wait(TEND_S):
            self.supervisor.tend()

    def wait_until_ready(self, interruptions: Interruptions, *, must_be_ready: bool = False) -> Service | None:
        """Waits for the API, and for the worker's first heartbeat; None when interrupted.

        An API that is up and not ready (no models.toml, say) is an error only if it must be; else it is reported.
        """
        url = local_url(self.settings.host, self.settings.port)
        deadline = time.monotonic() + self.settings.start_s
        metrics_url = ""
        while silent := self._silent(url, metrics_url):
            for program in self.supervisor.programs:
                if not program.running:
                    raise HemostatError(
                        ErrorCode.UNAVAILABLE,
                        f"the {program.name} ended while it started:\n{program.last_lines()}",
                        hint=f"read its log: {program.log}",
                    )
            if interruptions.count:
                return None
            if time.monotonic() > deadline:
                raise HemostatError(
                    ErrorCode.UNAVAILABLE,
                    f"the service did not start within {self.settings.start_s:g} s: {silent}",
                    hint=f"read the logs in {self.logs}; if the disk is slow, raise HEMOSTAT_START_S",
                )
            _sleep(POLL_S, interruptions)
            metrics_url = metrics_url or self._worker_metrics_url()
        if status_of(f"{url}/readyz") != 200:
            reason = _reason(f"{url}/readyz")
            if must_be_ready:
                raise HemostatError(ErrorCode.UNAVAILABLE, reason, hint=f"read the logs in {self.logs}")
            self._say(reason)
        return Service(url, metrics_url, self.settings)

    @staticmethod
    def _silent(url: str, metrics_url: str) -> str:
        """What has not answered yet; empty if all has."""
        return " and ".join(
            [
                *([] if status_of(f"{url}/livez") == 200 else [f"the API does not answer at {url}"]),
                *([] if metrics_url else ["the worker has not reported"]),
            ]
        )

    def stop(self) -> None:
        """API first, so that nothing is accepted that no one takes; then agent and worker; then Valkey, which saves.

        Ctrl-C meanwhile hurries this and does not break it off.
        """
        settings = self.settings
        with Interruptions() as interruptions:
            interruptions.count += max(0, self.interruptions.count - 1)
            try:
                self.supervisor.stop([self.api], settings.drain_s + MARGIN_S, interruptions)
                patience = settings.drain_s + settings.cancel_grace_s + MARGIN_S
                patience += MARGIN_S if self.agent is not None else 0.0  # it waits for processes of its own
                self.supervisor.stop(self.supervisor.programs, patience, interruptions)
            finally:
                self.supervisor.kill()
                if self._valkey is not None:
                    self._valkey.stop()

    def _worker_metrics_url(self) -> str:
        async def look() -> str:
            client = connect(self.settings)
            try:
                pid = self.worker.process.pid if self.worker.process is not None else 0
                found = [
                    worker.metrics_url for worker in await living(client) if worker.pid == pid and not worker.starting
                ]
            finally:
                await client.aclose()
            return found[0] if found else ""

        with contextlib.suppress(RedisError, OSError):
            return asyncio.run(look())
        return ""


@contextmanager
def _up(
    settings: Settings,
    say: Callable[[str], None],
    worker_arguments: Sequence[str],
    agent_arguments: Sequence[str] | None = None,
) -> Iterator[_Parts]:
    hide_memory()
    if agent_arguments is not None:
        check_one_fits(settings, own_host())
    try:
        check_binding(settings)
    except KeyFileError as error:
        raise HemostatError(ErrorCode.UNAVAILABLE, str(error), hint="`hemostat keys add` makes a key file") from error
    port = settings.port or free_port(settings.host)
    settings = settings.model_copy(
        update={
            "home": settings.home.expanduser().resolve(),
            "port": port,
            "worker_metrics_port": settings.worker_metrics_port or free_port(settings.host, but=port),
        }
    )
    require_ports(settings)
    parts = _Parts(settings, say, worker_arguments, agent_arguments)
    try:
        parts.start()
        yield parts
    finally:
        parts.stop()


def require_ports(settings: Settings) -> None:
    """Raises `HemostatError` if a port of the service is taken or cannot be used."""
    require_free(settings.host, settings.port, "HEMOSTAT_PORT")
    require_free(settings.host, settings.worker_metrics_port, "HEMOSTAT_WORKER_METRICS_PORT")


def require_free(host: str, port: int, variable: str) -> None:
    """Raises `HemostatError` that names the port, and the variable that changes it, when it is taken."""
    try:
        with _listener(host, port):
            pass
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise HemostatError(
                ErrorCode.UNAVAILABLE,
                f"port {port} on {host} is in use",
                hint=f"stop the program that uses it, or set {variable} to a free port (0: any)",
            ) from error
        raise HemostatError(
            ErrorCode.UNAVAILABLE,
            f"port {port} on {host} cannot be used: {error.strerror}",
            hint=f"set HEMOSTAT_HOST to an address of this machine, or {variable} to another port",
        ) from error


def free_port(host: str, *, but: int = 0) -> int:
    """A port that nothing listens on now, another one than `but`."""
    try:
        with _listener(host, 0) as found:
            port = int(found.getsockname()[1])
            return port if port != but else free_port(host, but=but)
    except OSError:
        return 0  # the host is the trouble: `require_free` says so


def _listener(host: str, port: int) -> socket.socket:
    """A bound, listening socket, as the API will have it."""
    family, kind, protocol, _, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)[0]
    found = socket.socket(family, kind, protocol)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen()
    except BaseException:
        found.close()
        raise
    return found


def _reason(url: str) -> str:
    try:
        with DIRECT.open(url, timeout=5):
            return "the service was not ready"
    except urllib.error.HTTPError as error:
        with error:
            problem = json.loads(error.read())
            told = str(problem.get("detail", "the service is not ready"))
            cure = problem.get("hint")
            return f"{told.rstrip('.')}. What to do: {cure}." if cure else told
    except (OSError, ValueError) as error:
        return f"the service does not answer ({type(error).__name__})"


def _sleep(seconds: float, interruptions: Interruptions) -> None:
    deadline = time.monotonic() + seconds
    while not interruptions.count and time.monotonic() < deadline:
        time.sleep(0.05)


def _say(console: Console) -> Callable[[str], None]:
    return lambda text: console.print(text, markup=False, highlight=False)
