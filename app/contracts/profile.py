"""A calibration profile: a fitted correction of one model's distribution, how it was fitted, and what proves it.

A profile never changes. Its version is a hash of the calibrator's files and of how it was fitted. KL is
KL(reference‖model), nats per token; *raw* is the model as it is, *calibrated* with the correction; saved is raw −
calibrated, paired by position. Times are Unix seconds.
"""

from typing import Annotated, Literal

from pydantic import Field

from app.contracts.base import Contract
from app.contracts.deployment import Version
from app.contracts.report import Count, Mean
from app.contracts.text import Domain

Setting = float | int | str | bool | None
SetName = Literal["fit", "choose", "test"]


class ProfileModel(Contract):
    """Which weights."""

    model: str
    weights_fingerprint: str
    recipe: tuple[dict[str, object], ...] = ()
    recipe_fingerprint: str | None = None


class DocumentSet(Contract):
    """One of the disjoint sets of documents: scored tokens by domain, and the hash of its text."""

    name: SetName
    documents: Count
    tokens: Count
    domains: dict[Domain, Count]
    fingerprint: str


class FitRecord(Contract):
    """Everything that decides what the calibrator became. Part of the version's hash."""

    origin: Literal["job", "online"]
    reference: ProfileModel
    candidate: ProfileModel
    head: str = Field(description="fingerprint of the head that its logits come from")
    hidden_size: Annotated[int, Field(ge=1)]
    vocabulary: Annotated[int, Field(ge=1)]
    tokenizer_fingerprint: str
    engine: str
    dtype: str
    window: Count
    seed: int
    sets: tuple[DocumentSet, ...]
    settings: dict[str, Setting] = Field(default_factory=dict, description="of the fitting routine")
    parent: Version | None = Field(default=None, description="version that an on-line refit began from")


class Cell(Contract):
    """One calibrator on one part of the test documents."""

    tokens: Count
    documents: Count
    raw: Mean
    calibrated: Mean
    saved: Mean
    saved_share: float | None = Field(description="saved / raw; null if raw is 0")


class TableRow(Contract):
    """One calibrator on the test documents. `own`: the fitted domains; `other`: all other domains."""

    calibrator: str
    chosen: bool
    own: Cell
    other: Cell | None = None
    domains: dict[str, Cell]
    choose_kl: float = Field(
        description=("mean KL on the documents that decided when it stopped and whether it was chosen, nats")
    )
    microseconds_per_token: float = Field(
        description=("extra time per token of applying it, on the machine that fitted it")
    )
    bytes: Count
    parameters: dict[str, Setting] = Field(default_factory=dict)


class Before(Contract):
    """A mean of the reference, of the raw and of the calibrated model; the difference is paired."""

    reference: Mean | None = None
    raw: Mean
    calibrated: Mean
    change: Mean = Field(description="calibrated − raw")


class Effects(Contract):
    """What else changes on the test documents."""

    top1_agreement: Before
    tv: Before
    entropy: Before
    loss: Before = Field(description="negative log-probability of the observed token, nats; its exp is the perplexity")


class TestRecord(Contract):
    """The results on the test documents, read once, after everything was fitted and chosen."""

    __test__ = False  # not a test class

    frozen: str = Field(description="hash of the fitted calibrators and of the choice, taken before the test was read")
    opened_at: float
    tolerance: float = Field(description="largest upper limit of a domain's rise in KL, as a share of its raw KL")
    passed: bool
    reasons: tuple[str, ...] = Field(default=(), description="why it does not pass; empty if it passes")
    table: tuple[TableRow, ...]
    effects: Effects | None = None
    kl_high: float | None = Field(description="upper 95 % limit of the calibrated KL over all test documents")
    raw_kl_high: float | None = Field(description="upper 95 % limit of the raw KL over all test documents")


class ProfileRecord(Contract):
    """What is stored with a calibrator."""

    fit: FitRecord
    test: TestRecord | None = Field(default=None, description="null: not tested on documents (an on-line refit)")
    job: str | None = None
    deployment: str | None = None
    evidence: dict[str, Setting] = Field(default_factory=dict, description="of an on-line refit: its trial")


class Profile(ProfileRecord):
    """A profile as it is listed. `calibrator` names its parts, joined by +; `parameters` describe them."""

    version: Version
    object: Literal["calibration.profile"] = "calibration.profile"
    calibrator: str
    parameters: dict[str, Setting]
    bytes: Count
    created_at: float


class ProfilePage(Contract):
    """All profiles, newest first."""

    object: Literal["list"] = "list"
    data: tuple[Profile, ...]
