"""A deployment: a modified model that is served, calibrated on line, and watched. Times are Unix seconds."""

from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from app.contracts.base import Contract
from app.contracts.request import Alias, CandidateModel, MetadataKey, MetadataText, ReferenceModel

IDENTITY: Final = "identity"  # the calibration version that changes nothing
NOT_FINITE: Final = "logits were not finite"  # why an engine ended a request, as its own port says it
VERSION_PATTERN: Final = r"^(identity|cal-[0-9a-f]{16})$"
Version = Annotated[str, Field(pattern=VERSION_PATTERN)]
Rate = Annotated[float, Field(ge=0, le=1)]
Nats = Annotated[float, Field(gt=0, le=100)]


class DeploymentState(StrEnum):
    """starting → ready ⇄ degraded → draining; failed from any. A deployment and each of its replicas has one."""

    STARTING = "starting"
    READY = "ready"
    DEGRADED = "degraded"
    DRAINING = "draining"
    FAILED = "failed"


class CalibrationMode(StrEnum):
    """auto: fitted, promoted and rolled back by the service; frozen: the active version stays; off: identity."""

    AUTO = "auto"
    FROZEN = "frozen"
    OFF = "off"


# As bodies name it: strict reading of Python takes no text for an enumeration.
GivenMode = Literal[CalibrationMode.AUTO, CalibrationMode.FROZEN, CalibrationMode.OFF]


class DriftState(StrEnum):
    """learning: too little seen yet, or no threshold; stale: no fresh observation; alarm until it is cleared."""

    LEARNING = "learning"
    OK = "ok"
    ALARM = "alarm"
    STALE = "stale"


class SamplingDefaults(Contract):
    """How answers are sampled where a request does not say; null: as OpenAI and vLLM have it (1, 1, all, 0, 0, 0, 1).

    Nothing of a checkpoint's generation_config.json is taken over: what is to hold is here.
    """

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = Field(default=None, description="0, -1: all tokens")
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = None


class DeploymentRequest(Contract):
    """The body of a creation."""

    name: Alias = Field(description="what clients give as `model`")
    model: CandidateModel = Field(description="the model that is served: an alias, and what is done to it")
    reference: ReferenceModel = Field(description="the unmodified model that its distribution is pulled back to")
    repair: Annotated[str, Field(max_length=64)] | None = Field(
        default=None,
        description="job whose recipe ends with `repair.lowrank`: its repair is served beside packed weights",
    )
    calibration: GivenMode = CalibrationMode.AUTO
    version: Version | None = Field(
        default=None, description="calibration profile to serve from the start; null: the one that is fitted"
    )
    shadow_rate: Rate = Field(default=0.01, description="share of requests that are scored again by both models")
    shadow_tokens_per_second: Annotated[float, Field(ge=0, le=1e6)] = Field(
        default=200.0, description="most generated tokens per second that are scored again"
    )
    drift_threshold: Nats | None = Field(
        default=None,
        description="drift limit: mean KL of served traffic in nats per token; null: 1.5 times the upper 95 % limit "
        "of the served profile, or of identity, on its test documents",
    )
    alpha: Annotated[float, Field(ge=1e-6, le=0.5)] = Field(
        default=0.01, description="probability of ever raising a drift alarm while there is none"
    )
    replicas: Annotated[int, Field(ge=1, le=16)] = 1
    max_model_len: Annotated[int, Field(ge=16, le=1_048_576)] | None = Field(
        default=None, description="context in tokens; null: the model's own, at most 4096"
    )
    verify: bool = Field(default=False, description="also run the verified decoding of this deployment")
    sampling: SamplingDefaults = Field(
        default=SamplingDefaults(), description="sampling parameters of requests that name none"
    )
    metadata: Annotated[dict[MetadataKey, MetadataText], Field(max_length=16)] = Field(default_factory=dict)


class DeploymentPatch(Contract):
    """What can be changed while it runs; a field that is left out stays."""

    calibration: GivenMode | None = None
    shadow_rate: Rate | None = None
    shadow_tokens_per_second: Annotated[float, Field(ge=0, le=1e6)] | None = None
    drift_threshold: Nats | None = None
    alpha: Annotated[float, Field(ge=1e-6, le=0.5)] | None = None
    replicas: Annotated[int, Field(ge=1, le=16)] | None = None
    sampling: SamplingDefaults | None = Field(default=None, description="replaces all of them; {} removes them")
    metadata: Annotated[dict[MetadataKey, MetadataText], Field(max_length=16)] | None = None


class Replica(Contract):
    """What a serving process says of itself; it is gone when its lease runs out."""

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$")]
    role: Literal["serve", "shadow", "verify"] = "serve"
    state: DeploymentState = DeploymentState.STARTING
    reason: str = ""
    url: str = Field(default="", description="its OpenAI server (serve), or its own door (verify); internal")
    engine_url: str = Field(default="", description="door of the engine process: counters, non-finite requests")
    # Told with the lease alone (`app.deployments.process_side`): it is in no answer and no schema.
    secret: SkipJsonSchema[str] = Field(default="", exclude=True, repr=False)
    metrics_urls: tuple[str, ...] = Field(default=(), description="what Prometheus scrapes")
    versions: tuple[Version, ...] = Field(default=(IDENTITY,), description="calibration versions that are loaded")
    host: str = ""
    loopback: str = Field(default="", description="the same for processes that share a loopback interface")
    device: str = Field(default="", description="its GPUs by their numbers in nvidia-smi, or `cpu`")
    pid: int = 0
    started_at: float = 0.0
    seen_at: float = 0.0


class Interval(Contract):
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float


class ServedDivergence(Contract):
    """KL(reference‖served) of live traffic over the recent window, nats per token, clustered by request."""

    raw: Interval
    calibrated: Interval
    engine: Interval | None = Field(
        description="KL(serving engine‖scoring engine) of the same weights; null: not known"
    )
    saved: Interval = Field(description="raw − calibrated, paired by position")
    top1_agreement_raw: float
    top1_agreement_calibrated: float
    requests: int
    tokens: int


class ShadowStatus(Contract):
    """What the shadow process last found."""

    drift: DriftState = DriftState.LEARNING
    reason: str = ""
    threshold: float | None = None
    quiet_limit: float | None = Field(
        default=None, description="learned from the first live requests; null: not learned yet"
    )
    e_value: float = 1.0
    e_value_needed: float | None = Field(
        default=None, description="at which an alarm is raised: 2k(k+1)/alpha in episode k; null: there is no threshold"
    )
    alarms: int = 0
    divergence: ServedDivergence | None = None
    last_observation_at: float | None = None
    trial: Version | None = Field(default=None, description="version that is tried in shadow")
    updated_at: float = 0.0


class Deployment(Contract):
    """A deployment as its owner sees it."""

    id: str
    object: Literal["deployment"] = "deployment"
    name: Alias
    model: CandidateModel
    reference: ReferenceModel
    repair: str | None = Field(
        default=None, description="job whose repair is served beside packed weights; null: the recipe's result is"
    )
    calibration: CalibrationMode
    active_version: Version = IDENTITY
    previous_version: Version | None = None
    activated_at: float | None = None
    fit_job: str | None = Field(default=None, description="the calibrate job that fits, or fitted, its profile")
    fit_reason: str = Field(default="", description="why identity is served, where it is")
    shadow_rate: float
    shadow_tokens_per_second: float
    drift_threshold: float | None
    alpha: float
    replicas: int
    max_model_len: int | None
    verify: bool = False
    sampling: SamplingDefaults = SamplingDefaults()
    state: DeploymentState
    reason: str = ""
    promotions: int = 0
    rollbacks: int = 0
    running: tuple[Replica, ...] = ()
    shadow: ShadowStatus | None = None
    created_at: float
    updated_at: float
    metadata: dict[str, str] = Field(default_factory=dict)

    @property
    def unmodified(self) -> bool:
        """Whether it serves its own reference, so that there is nothing to calibrate."""
        return self.model.model == self.reference.model and not self.model.recipe


class DeploymentEventType(StrEnum):
    """What happens to a deployment."""

    CREATED = "created"
    CHANGED = "changed"
    STATE = "state"
    REPLICA = "replica"
    FIT_STARTED = "fit_started"
    FITTED = "fitted"
    REFUSED = "refused"  # a profile did not prove itself
    TRIAL = "trial"  # a refitted profile is tried in shadow
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    FROZEN = "frozen"
    ALARM = "alarm"
    CLEARED = "cleared"
    STALE = "stale"
    DELETED = "deleted"


class DeploymentEvent(Contract):
    """One entry of a deployment's event log. `evidence` holds the numbers that the decision was made on."""

    type: DeploymentEventType
    at: float
    reason: str = ""
    version: Version | None = None
    previous: Version | None = None
    evidence: dict[str, float | int | str | bool | None] = Field(default_factory=dict)


class ShadowSample(Contract):
    """One request to be scored again, as token ids; never text. It expires, and is dropped where the queue is full."""

    id: str
    prompt: tuple[int, ...]
    output: Annotated[tuple[int, ...], Field(min_length=1)]
    version: Version
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    hidden: str | None = Field(
        default=None,
        description="name of the file, below the deployment's folder, of the hidden states it was served with",
    )
    at: float

    # What does not fit is reported without its content: token ids are text.
    model_config = Contract.model_config | {"hide_input_in_errors": True}


class PromoteRequest(Contract):
    """The body of a promotion by hand."""

    version: Version
    reason: MetadataText = ""


class RollbackRequest(Contract):
    """The body of a rollback by hand; it may be left out."""

    to: Version | None = Field(default=None, description="null: the version before, else identity")
    reason: MetadataText = ""


class DeploymentList(Contract):
    """All deployments, oldest first."""

    object: Literal["list"] = "list"
    data: tuple[Deployment, ...]


class NumberedEvent(DeploymentEvent):
    """An event with its number within the deployment, from 1 without gaps."""

    id: int


class DeploymentEventPage(Contract):
    """Events after a number, oldest first. The next page begins after `last_id`."""

    object: Literal["list"] = "list"
    data: tuple[NumberedEvent, ...]
    last_id: int
    has_more: bool
