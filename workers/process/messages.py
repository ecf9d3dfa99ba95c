"""What parent and child say to each other: one JSON object a line, never a pickle."""

from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from app.contracts.base import Contract
from app.contracts.job import JobError
from app.jobs.record import Claim

# Longest line the child may send. What it says is short: text and numbers of a report go through files.
MAX_LINE_BYTES: Final = 1024 * 1024
# Most values in one `Observe`; 20 characters a value stay far below MAX_LINE_BYTES.
MAX_VALUES: Final = 4096


class Run(Contract):
    """Parent → child: run this attempt, or help the worker that runs it. `request` is the job's request as JSON.

    `share` is what its engines may take of a GPU's memory.
    """

    type: Literal["run"] = "run"
    job: str
    attempt: int
    kind: str
    request: dict[str, Any]
    helping: bool = False
    share: float = 1.0

    @classmethod
    def of(cls, claim: Claim, share: float, *, helping: bool = False) -> "Run":
        """The message for a claimed attempt."""
        kind, request = claim.request.kind, claim.request.model_dump(mode="json")
        return cls(job=claim.job_id, attempt=claim.attempt, kind=kind, request=request, helping=helping, share=share)


class Cancel(Contract):
    """Parent → child: stop this attempt, keep the engine."""

    type: Literal["cancel"] = "cancel"
    job: str
    attempt: int


class Shutdown(Contract):
    """Parent → child: close the engine and exit."""

    type: Literal["shutdown"] = "shutdown"


class Ready(Contract):
    """Child → parent: up and listening. Sent once, before anything heavy is imported."""

    type: Literal["ready"] = "ready"
    pid: int


class ProgressMade(Contract):
    """Child → parent: how far the attempt is."""

    type: Literal["progress"] = "progress"
    job: str
    attempt: int
    phase: Annotated[str, Field(max_length=200)]
    done: Annotated[int, Field(ge=0)]
    total: Annotated[int, Field(ge=0)]


class Alive(Contract):
    """Child → parent: the handler's own thread goes on. Sent where the handler looks whether it is to stop."""

    type: Literal["alive"] = "alive"


class Logged(Contract):
    """Child → parent: a line for the job's event log."""

    type: Literal["log"] = "log"
    job: str
    attempt: int
    message: str


class Observed(Contract):
    """Child → parent: samples of one series of a metric. NaN and infinities are allowed, as Prometheus has them."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=True, ser_json_inf_nan="constants")

    type: Literal["observe"] = "observe"
    name: str
    labels: dict[str, str]
    values: Annotated[tuple[float, ...], Field(max_length=MAX_VALUES)]


class Done(Contract):
    """Child → parent: the report and these artifacts lie in the attempt's folder, whole and on disk."""

    type: Literal["done"] = "done"
    job: str
    attempt: int
    severity: str
    classes: tuple[str, ...]
    answer: str | None = None
    artifacts: tuple[str, ...]


class Failed(Contract):
    """Child → parent: the attempt failed. `spoiled`: the process is not to be trusted with another job."""

    type: Literal["failed"] = "failed"
    job: str
    attempt: int
    error: JobError
    spoiled: bool


class Stopped(Contract):
    """Child → parent: the attempt stopped because it was asked to; or there is no more to help with."""

    type: Literal["stopped"] = "stopped"
    job: str
    attempt: int


ToChild = Run | Cancel | Shutdown
Ending = Done | Failed | Stopped
FromChild = Ready | Alive | ProgressMade | Logged | Observed | Ending

_TO_CHILD: TypeAdapter[ToChild] = TypeAdapter(Annotated[ToChild, Field(discriminator="type")])
_FROM_CHILD: TypeAdapter[FromChild] = TypeAdapter(Annotated[FromChild, Field(discriminator="type")])


def encode(message: ToChild | FromChild) -> bytes:
    """One line, its newline included."""
    return message.model_dump_json().encode() + b"\n"


def decode_to_child(line: bytes) -> ToChild:
    """What the parent said. Raises pydantic's `ValidationError`."""
    return _TO_CHILD.validate_json(line)


def decode_from_child(line: bytes) -> FromChild:
    """What the child said. Raises pydantic's `ValidationError`."""
    return _FROM_CHILD.validate_json(line)
