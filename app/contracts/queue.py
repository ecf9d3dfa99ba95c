"""What a queued job waits for."""

from typing import Annotated, Literal

from pydantic import Field

from app.contracts.base import Contract
from app.contracts.job import Job, JobStatus


class Queue(Contract):
    """The jobs whose turn comes before that of a queued one. A job that is not queued waits for none."""

    object: Literal["diagnosis.queue"] = "diagnosis.queue"
    status: JobStatus = Field(description="of the job itself: `queued` with none before it is next")
    before: Annotated[int, Field(ge=0)] = Field(
        description="how many: those that workers hold, and those that workers will be given before it"
    )
    first: tuple[Job, ...] = Field(description="of them, the first two in the order of their turn")
