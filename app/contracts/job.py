"""A diagnosis job: what is asked, how far it is, how it ended."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, model_validator

from app.contracts.base import Contract
from app.contracts.errors import CATALOGUE, ErrorCode
from app.contracts.recipe import Recipe
from app.contracts.text import ShippedText, TextSource

Alias = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
MetadataText = Annotated[str, Field(max_length=512)]
MetadataKey = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class JobStatus(StrEnum):
    """queued → running → succeeded | failed | cancelled; cancelling stands between running and cancelled."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED})


class ReferenceModel(Contract):
    """The unmodified model, by alias."""

    model: Alias


class CandidateModel(Contract):
    """The modified model: an alias, and what is done to it before it is compared."""

    model: Alias
    recipe: Recipe = ()


class Thresholds(Contract):
    """Mean KL, in nats a token, at which each class begins. Rising."""

    mild: Annotated[float, Field(gt=0)] = 0.01
    moderate: Annotated[float, Field(gt=0)] = 0.05
    severe: Annotated[float, Field(gt=0)] = 0.2
    collapse: Annotated[float, Field(gt=0)] = 1.0

    @model_validator(mode="after")
    def _rising(self) -> "Thresholds":
        if not self.mild < self.moderate < self.severe < self.collapse:
            raise ValueError("thresholds must rise: mild < moderate < severe < collapse")
        return self


class JobRequest(Contract):
    """What every kind shares."""

    reference: ReferenceModel
    candidate: CandidateModel
    text: TextSource = Field(default_factory=lambda: ShippedText(source="shipped"))
    window: Annotated[int, Field(ge=2, le=1_048_576)] = 512
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    metadata: Annotated[dict[MetadataKey, MetadataText], Field(max_length=16)] = Field(default_factory=dict)


class CompareRequest(JobRequest):
    """Compare the next-token distributions of two models over one text."""

    kind: Literal["compare"]
    thresholds: Thresholds = Thresholds()
    precision: Literal["fast", "float32"] = Field(
        default="fast", description="Arithmetic of the divergence: bf16 products in difference form, or float32."
    )
    store_text: bool | None = Field(
        default=None,
        description="Keep the text around the worst tokens in the report; null: no for hub and file sources.",
    )


KINDS: tuple[str, ...] = ("compare",)


class SubmitRequest(CompareRequest):
    """The body of a submission. `dry_run` validates and estimates, and runs nothing."""

    dry_run: bool = False


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


class Job(Contract):
    """A job as its owner sees it. Times are Unix seconds. Never holds document text."""

    id: str
    object: Literal["diagnosis.job"] = "diagnosis.job"
    kind: str
    status: JobStatus
    reference: ReferenceModel
    candidate: CandidateModel
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    attempt: int = 0
    progress: Progress = Progress()
    error: JobError | None = None
    severity: str | None = None
    report_url: str
    artifacts: tuple[str, ...] = ()
    metadata: dict[str, str] = Field(default_factory=dict)


class JobPage(Contract):
    """One page of jobs, newest first."""

    object: Literal["list"] = "list"
    data: tuple[Job, ...]
    first_id: str | None
    last_id: str | None
    has_more: bool


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
