"""Which handler runs which kind of job, found by name so that nothing heavy is imported before it is needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from app.contracts.requests.attribute import AttributeRequest
from app.contracts.requests.base import JobRequest
from app.contracts.requests.calibrate import CalibrateRequest
from app.contracts.requests.compare import CompareRequest
from app.contracts.requests.mitigate import MitigateRequest
from app.contracts.requests.surface import SurfaceRequest
from app.contracts.requests.sweep import SweepRequest
from app.contracts.requests.tasks import TasksRequest
from app.contracts.requests.trajectory import TrajectoryRequest
from app.settings import Settings
from workers.diagnosis.context import Handler, Helper


class Room(Protocol):
    """What outlives a job in the child process: warm engines."""

    def close(self) -> None:
        """Ends them."""
        ...

    def take_share(self, share: float) -> None:
        """From now on they take at most this share of a GPU's memory."""
        ...


@dataclass(frozen=True)
class Kind:
    """One kind of job: the contract of its request, and its handler as `module:function`.

    `helper` takes parts of a running job of another worker off it; empty: such a job is one worker's alone.
    """

    request: type[JobRequest]
    handler: str
    helper: str = ""


@dataclass(frozen=True)
class Handlers:
    """The kinds that a worker takes, and the room that their handlers share (`module:Class`, called with settings)."""

    kinds: Mapping[str, Kind]
    room: str
    preload: tuple[str, ...] = ()  # modules that a first job would wait for

    def handler(self, kind: str) -> Handler:
        """The handler of a kind; imports its module. Raises KeyError."""
        found: Handler = load(self.kinds[kind].handler)
        return found

    def helper(self, kind: str) -> Helper:
        """What helps with a kind; imports its module. Raises KeyError."""
        found: Helper = load(self.kinds[kind].helper)
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
        room: Room = load(self.room)(settings)
        return room


def load(name: str) -> Any:
    """The object that `module:attribute` names."""
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)


HANDLERS = Handlers(
    kinds={
        "compare": Kind(CompareRequest, "workers.diagnosis.compare:compare"),
        "calibrate": Kind(CalibrateRequest, "workers.calibration.job:calibrate"),
        "attribute": Kind(AttributeRequest, "workers.diagnosis.attribute.job:attribute"),
        "mitigate": Kind(MitigateRequest, "workers.diagnosis.mitigate.job:mitigate"),
        "sweep": Kind(SweepRequest, "workers.diagnosis.sweep.job:sweep", "workers.diagnosis.sweep.job:help_sweep"),
        "surface": Kind(
            SurfaceRequest, "workers.diagnosis.surface.job:surface", "workers.diagnosis.surface.job:help_surface"
        ),
        "tasks": Kind(TasksRequest, "workers.diagnosis.tasks.job:tasks"),
        "trajectory": Kind(TrajectoryRequest, "workers.diagnosis.trajectory.job:trajectory"),
    },
    room="workers.engine.room:EngineRoom",
    preload=("workers.diagnosis.compare",),
)
