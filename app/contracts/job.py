"""A diagnosis job: what is asked, how far it is, how it ended."""

from enum import StrEnum
from typing import Annotated, Final, Literal, get_args

from pydantic import Field, TypeAdapter, model_validator

from app.contracts.base import Contract
from app.contracts.errors import CATALOGUE, ErrorCode
from app.contracts.recipe import Recipe
from app.contracts.text import Domain, ShippedText, TextSource

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

    kind: str
    reference: ReferenceModel
    candidate: CandidateModel
    text: TextSource = Field(default_factory=lambda: ShippedText(source="shipped"))
    window: Annotated[int, Field(ge=2, le=1_048_576)] = 512
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    allow_overlap: bool = Field(
        default=False,
        description="Whether a recipe step may look at documents that are scored: the result then flatters the step.",
    )
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


_CALIBRATOR = "(temperature|confidence|token_bias|lowrank|mixture)"
CALIBRATOR_PATTERN: Final = rf"^{_CALIBRATOR}(\+{_CALIBRATOR})*$"
CalibratorName = Annotated[str, Field(max_length=120, pattern=CALIBRATOR_PATTERN)]
# Each alone, so that the table shows what each is worth, and the compositions of which one is usually chosen.
CALIBRATORS: Final[tuple[CalibratorName, ...]] = (
    "temperature",
    "confidence",
    "token_bias",
    "lowrank",
    "mixture",
    "lowrank+confidence",
    "lowrank+token_bias+confidence",
)


class Sampling(Contract):
    """Temperature and top-p that a client samples with."""

    temperature: Annotated[float, Field(gt=0, le=2)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0


class CalibrateRequest(JobRequest):
    """Fit corrections of the candidate's distribution towards the reference's, choose one, and prove it on test text.

    Three disjoint sets of documents: one is fitted, one stops the fitting and chooses, one is read once and decides.
    """

    kind: Literal["calibrate"]
    text: TextSource = Field(
        default_factory=lambda: ShippedText(source="shipped", corpus="calibration"),
        description="documents to fit and to choose by",
    )
    test_text: TextSource | None = Field(
        default=None,
        description="documents of the test; null: the shipped evaluation corpus where `text` is the shipped "
        "calibration corpus, else a share of the documents of `text`",
    )
    fit_domains: Annotated[tuple[Domain, ...], Field(min_length=1, max_length=100)] | None = Field(
        default=None, description="domains of `text` to fit; others only stand in the test. null: all"
    )
    tokens: Annotated[int, Field(ge=256, le=1_000_000)] = Field(
        default=25_000, description="at most so many tokens are fitted"
    )
    calibrators: Annotated[tuple[CalibratorName, ...], Field(min_length=1, max_length=32)] = Field(
        default=CALIBRATORS, description="what is fitted and compared; `+` composes, hidden corrections first"
    )
    tolerance: Annotated[float, Field(ge=0, le=0.1)] = Field(
        default=0.005,
        description="the upper limit of (calibrated − raw) KL of a domain may be at most this share of its raw KL",
    )
    sampling: Annotated[tuple[Sampling, ...], Field(max_length=8)] = Field(
        default=(Sampling(temperature=0.7, top_p=0.9),), description="also compare what is left after these"
    )
    thresholds: Thresholds = Thresholds()
    deployment: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] | None = (
        Field(default=None, description="id or name of the deployment that is to serve the profile if it passes")
    )


TreatmentName = Literal["repair.lowrank", "quantize.dynamic", "prune.gradient", "norm.tweak", "protect", "calibration"]
TREATMENTS: Final[tuple[TreatmentName, ...]] = get_args(TreatmentName)


class Budget(Contract):
    """What the treated model may take. Each limit is hard; null is none.

    Where neither bytes nor bits are given, the treated model may take a quarter more bytes than the candidate: without
    any limit the unmodified model would win.
    """

    bytes: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="of the whole model, as its manifest counts them: what it takes packed"
    )
    bits_per_weight: Annotated[float, Field(gt=0, le=64)] | None = Field(
        default=None, description="mean over the whole model, scales and zero points counted"
    )
    added_latency: Annotated[float, Field(ge=0, le=100)] | None = Field(
        default=None, description="time a token of the engine that scores, more than the candidate's: 0.1 is a tenth"
    )


class MitigateRequest(JobRequest):
    """Find what makes the candidate's damage good within a budget, and prove it on test text.

    Treatments are fitted on `calibration`, chosen on a share of the documents of `text`, and tested on the others (or
    on `test_text`), which are read once.
    """

    kind: Literal["mitigate"]
    test_text: TextSource | None = Field(
        default=None, description="documents of the test; null: three fifths of the documents of `text`"
    )
    calibration: TextSource = Field(
        default_factory=lambda: ShippedText(source="shipped", corpus="calibration"),
        description="text that treatments look at; it may share no document with the others",
    )
    calibration_windows: Annotated[int, Field(ge=2, le=4096)] = Field(
        default=32, description="windows that a treatment looks at; cheap trials look at a quarter of them"
    )
    calibration_window: Annotated[int, Field(ge=8, le=32768)] = Field(default=512, description="tokens of a window")
    budget: Budget = Budget()
    treatments: Annotated[tuple[TreatmentName, ...], Field(min_length=1, max_length=16)] = Field(
        default=TREATMENTS, description="what may be tried"
    )
    trials: Annotated[int, Field(ge=2, le=200)] = Field(
        default=16, description="recipes that are made and measured, cheap and full ones together"
    )
    thresholds: Thresholds = Thresholds()
    store_text: bool | None = Field(
        default=None,
        description="Keep the text around the worst tokens in the report; null: no for hub and file sources.",
    )
    export: Literal["recipe", "checkpoint"] = Field(
        default="recipe",
        description="`checkpoint`: the recommended checkpoint's files are artifacts of the job, too",
    )


AnyRequest = CompareRequest | CalibrateRequest | MitigateRequest
REQUEST: Final[TypeAdapter[AnyRequest]] = TypeAdapter(Annotated[AnyRequest, Field(discriminator="kind")])
KINDS: Final[tuple[str, ...]] = tuple(
    get_args(request.model_fields["kind"].annotation)[0] for request in get_args(AnyRequest)
)


class CompareSubmission(CompareRequest):
    """The body of a submission. `dry_run` validates and estimates, and runs nothing."""

    dry_run: bool = False


class CalibrateSubmission(CalibrateRequest):
    """The body of a submission. `dry_run` validates and estimates, and runs nothing."""

    dry_run: bool = False


class MitigateSubmission(MitigateRequest):
    """The body of a submission. `dry_run` validates and estimates, and runs nothing."""

    dry_run: bool = False


SubmitRequest = CompareSubmission | CalibrateSubmission | MitigateSubmission
SUBMISSION: Final[TypeAdapter[SubmitRequest]] = TypeAdapter(Annotated[SubmitRequest, Field(discriminator="kind")])


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
    deployment: str | None = Field(default=None, description="the deployment that it was asked for")
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
