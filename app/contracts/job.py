"""A diagnosis job: how far it is, how it ended. What is asked is in `app.kinds`."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, JsonValue

from app.contracts.base import Contract
from app.contracts.errors import CATALOGUE, ErrorCode
from app.contracts.request import Knob, ReferenceModel


class JobStatus(StrEnum):
    """queued → running → succeeded | failed | cancelled; cancelling is between running and cancelled."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED})


class Progress(Contract):
    """How far a job is. `done` of `total` steps of `phase`; total 0 while it is not known."""

    phase: str = "queued"
    done: Annotated[int, Field(ge=0)] = 0
    total: Annotated[int, Field(ge=0)] = 0


class JobError(Contract):
    """Why a job failed."""

    code: ErrorCode
    title: str
    detail: str
    hint: str = ""


def job_error(code: ErrorCode, detail: str, hint: str = "") -> JobError:
    """An error with the title that its code has."""
    return JobError(code=code, title=CATALOGUE[code].title, detail=detail, hint=hint)


class CandidateSummary(Contract):
    """The modified model: an alias, and in short what is done to it. The report has the whole recipe."""

    model: str
    recipe: tuple[dict[str, JsonValue], ...] = Field(
        default=(),
        description="documents that stand in it are counted; a list that is long is given by its length, and steps for "
        "which there is no room by their number",
    )


class Job(Contract):
    """A job as its owner sees it. Times are Unix seconds. Never holds document text."""

    id: str
    object: Literal["diagnosis.job"] = "diagnosis.job"
    kind: str
    status: JobStatus
    reference: ReferenceModel
    candidate: CandidateSummary
    knobs: tuple[Knob, ...] = Field(
        default=(), description="of a sweep or surface; the candidate's recipe holds the first value of each"
    )
    text: str = Field(
        description="the request's `text`, as `--text` of the command line names it: `file:PATH`, `inline:3` for three "
        "documents in the request, `hub:a/b, split train`",
    )
    test_text: str | None = Field(
        default=None,
        description="the other text that the class of a `calibrate` or `mitigate` is measured on, named likewise; "
        "null: measured on `text`",
    )
    window: int | None = Field(default=None, description="tokens per window of it; null where the kind has none")
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    attempt: int = 0
    progress: Progress = Progress()
    error: JobError | None = None
    severity: str | None = None
    classes: tuple[str, ...] = Field(
        default=(),
        description="every class that the interval of the verdict touches, the mildest first; all five if there is no "
        "interval; empty before the job has succeeded",
    )
    answer: str | None = Field(
        default=None,
        description="what the job found of what its kind asks, in the few words that its report's page is titled with: "
        "`Undecided` of `tasks`, `Mild up to sparsity 0.4` of a `sweep`; null for a `compare`, whose answer is the "
        "class, and before the job has succeeded",
    )
    report_url: str
    artifacts: tuple[str, ...] = ()
    deployment: str | None = Field(default=None, description="the deployment that it was asked for")
    metadata: dict[str, str] = Field(default_factory=dict)


class JobPage(Contract):
    """One page of jobs, newest first."""

    object: Literal["list"] = "list"
    data: tuple[Job, ...]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Turn(Contract):
    """A job that another one waits for."""

    id: str
    kind: str


class Queue(Contract):
    """What a queued job waits for. A job that is not queued waits for none."""

    object: Literal["diagnosis.queue"] = "diagnosis.queue"
    status: JobStatus = Field(description="of the job itself: `queued` with none before it is next")
    before: Annotated[int, Field(ge=0)] = Field(description="how many jobs have their turn before it")
    first: Turn | None = Field(default=None, description="the first of them; null if the key may not read it")

    @property
    def description(self) -> str:
        """What it waits for, in words; "" for nothing."""
        first = f", first {self.first.kind} {self.first.id}" if self.first else ""
        return f"{self.before} job{'' if self.before == 1 else 's'} before it{first}" if self.before else ""


class Estimate(Contract):
    """The answer to a dry run: nothing was run, the numbers are estimates."""

    object: Literal["diagnosis.estimate"] = "diagnosis.estimate"
    valid: Literal[True] = True
    kind: str
    documents: int | None = Field(description="null where the source does not say before it is read")
    tokens: int
    reference_store_bytes: int
    checkpoint_bytes: int
    seconds: float
    assumptions: tuple[str, ...]
