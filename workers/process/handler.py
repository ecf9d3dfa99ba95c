"""What a job handler is given, what it must give back, and how it is found.

A handler runs in the worker's child process. It reads its request, works below two folders, and speaks to the outside
only through its context: nothing of Redis, HTTP or Prometheus is known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Protocol

from app.contracts.request import JobRequest
from app.kinds.kind import Kind
from app.settings import Settings

if TYPE_CHECKING:
    from workers.engine.room import EngineRoom


class JobCancelled(Exception):  # noqa: N818 - not an error: somebody wanted the job to stop
    """The job was asked to stop (cancelled, or its worker is draining). Handlers let it pass."""


class JobContext(Protocol):
    """One attempt at one job, as its handler sees it.

    `scratch` survives attempts: what a killed attempt left there, the next one finds, so whatever is written there must
    be written atomically. `output` belongs to this attempt alone; every file below it becomes an artifact of the job
    when the handler returns, and the report is written there by the caller.
    """

    @property
    def job_id(self) -> str:
        """Id of the job."""
        ...

    @property
    def attempt(self) -> int:
        """Which attempt this is, counted from 1."""
        ...

    @property
    def settings(self) -> Settings:
        """Settings of the worker."""
        ...

    @property
    def scratch(self) -> Path:
        """Existing folder that a resumed attempt finds again; removed once the job has succeeded."""
        ...

    @property
    def output(self) -> Path:
        """Existing folder for the report and the artifacts of this attempt."""
        ...

    def progress(self, phase: str, done: int, total: int) -> None:
        """Says that `done` of `total` steps of `phase` are done (total 0: not known). Cheap, throttled."""
        ...

    def log(self, message: str) -> None:
        """Appends a line to the job's event log. It must not hold document text."""
        ...

    def check_cancelled(self) -> None:
        """Returns at once, or raises `JobCancelled`. Call it at least once a second of compute."""
        ...

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Sends one sample of a metric of `workers.telemetry` to the process that exports it."""
        ...

    def observe_many(self, name: str, values: Iterable[float], **labels: str) -> None:
        """Sends many samples of one series."""
        ...


class Decision(Protocol):
    """A verdict as far as a job's record keeps it."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Every severity class that its interval touches, the mildest first; all of them where there is no interval."""
        ...


class Report(Protocol):
    """What a handler returns: a pydantic model of the report, with its verdict and the severity of that."""

    @property
    def severity(self) -> str:
        """Severity class of the verdict."""
        ...

    @property
    def decision(self) -> Decision:
        """The verdict."""
        ...

    def model_dump_json(self, *, indent: int | None = None) -> str:
        """The report as JSON."""
        ...


# A handler is called with any request of its own kind, and narrows it itself.
Handler = Callable[[Any, JobContext, "EngineRoom"], Report]
# A helper works on another worker's running attempt, and leaves what it finds in the job's scratch folder.
Helper = Callable[[Any, JobContext, "EngineRoom"], None]


class Room(Protocol):
    """What outlives a job in the child process: warm engines."""

    def close(self) -> None:
        """Ends them."""
        ...

    def take_share(self, share: float) -> None:
        """From now on they take at most this share of a GPU's memory."""
        ...


@dataclass(frozen=True)
class Handlers:
    """The kinds that a worker takes, and the room that their handlers share (`module:Class`, called with settings)."""

    kinds: Mapping[str, Kind]
    room: str
    preload: tuple[str, ...] = ()  # modules that a first job would wait for

    def handler(self, kind: str) -> Handler:
        """The handler of a kind; imports its module. Raises KeyError."""
        found: Handler = resolve_name(self.kinds[kind].handler)
        return found

    def helper(self, kind: str) -> Helper:
        """What helps with a kind; imports its module. Raises KeyError."""
        found: Helper = resolve_name(self.kinds[kind].helper)
        return found

    @property
    def shared(self) -> frozenset[str]:
        """The kinds that several workers can work on at once."""
        return frozenset(name for name, kind in self.kinds.items() if kind.helper)

    def request(self, kind: str, request: Mapping[str, Any]) -> JobRequest:
        """The request of a job, validated. Raises KeyError and pydantic's `ValidationError`."""
        return self.kinds[kind].request.model_validate(request)

    def warm_up(self) -> None:
        """Imports what the first job needs."""
        for module in self.preload:
            import_module(module)

    def open_room(self, settings: Settings) -> Room:
        """A room without an engine yet; imports what engines need."""
        room: Room = resolve_name(self.room)(settings)
        return room
