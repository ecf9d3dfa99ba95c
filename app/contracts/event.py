"""What a job's event stream carries."""

from typing import Annotated, Literal

from pydantic import Field

from app.contracts.base import Contract
from app.contracts.job import JobError, JobStatus, Progress


class StateEvent(Contract):
    """The job's status changed."""

    type: Literal["state"] = "state"
    status: JobStatus
    attempt: int
    at: float


class ProgressEvent(Contract):
    """The job went on."""

    type: Literal["progress"] = "progress"
    progress: Progress
    attempt: int
    at: float


class LogEvent(Contract):
    """A line for people. Never holds document text."""

    type: Literal["log"] = "log"
    message: str
    attempt: int
    at: float


class GapEvent(Contract):
    """Events after the asked-for id are no longer kept; `resume_from` is the oldest that is."""

    type: Literal["gap"] = "gap"
    resume_from: str
    at: float


class EndEvent(Contract):
    """The job ended; nothing follows."""

    type: Literal["end"] = "end"
    status: JobStatus
    error: JobError | None = None
    at: float


Event = Annotated[StateEvent | ProgressEvent | LogEvent | GapEvent | EndEvent, Field(discriminator="type")]
