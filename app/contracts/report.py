"""What the reports of every kind of job hold, schema `hemostat.report/1`.

All divergences are in nats per token over the full vocabulary, p the reference's and q the candidate's next-token
distribution after the same tokens. Intervals are 95 %, clustered as `Mean.clusters` says. Positions whose logits are
not finite are counted and left out of every mean. A number is null if no position remains, or if it exceeds a float.
"""

from typing import Annotated, Final, Literal

from pydantic import Field

from app.contracts.base import Contract
from app.contracts.distances import DISTANCES, Distance
from app.contracts.metric import COMPARISON
from app.contracts.notice import Notice
from app.contracts.request import Thresholds

SCHEMA: Final = "hemostat.report/1"

Severity = Literal["none", "mild", "moderate", "severe", "collapse"]
SEVERITIES: tuple[Severity, ...] = ("none", "mild", "moderate", "severe", "collapse")
Count = Annotated[int, Field(ge=0)]
Ci = tuple[float, float]
Number = float | None


class Mean(Contract):
    """A mean over scored positions with its 95 % interval. A single cluster has no interval: null."""

    mean: Number
    ci: Ci | None
    clusters: Literal["documents", "windows"] | None = Field(
        default=None, description="what the interval is clustered by; windows if documents are too few"
    )


class Distribution(Mean):
    """Mean, interval and order statistics of one value over scored positions; `p999` is the 99.9th percentile."""

    median: Number
    p90: Number
    p95: Number
    p99: Number
    p999: Number
    min: Number
    max: Number
    unit: Literal["nats", "probability"] = "nats"


class Divergence(Contract):
    """Each distance between the next-token distributions p and q."""

    kl: Distribution
    __annotations__ |= {distance.name: Distribution for distance in DISTANCES}

    def of(self, distance: Distance) -> Distribution:
        """One of them."""
        found: Distribution = getattr(self, distance.name)
        return found


class DeltaP(Distribution):
    """q(x) − p(x) of the observed token x, and its root mean square."""

    p001: Number
    p01: Number
    p05: Number
    p10: Number
    rms: Number


class Perplexity(Contract):
    """exp of the mean negative log-probability of the observed tokens. The ratio candidate/reference is paired by
    position."""

    reference: Number
    candidate: Number
    ratio: Mean


class Agreement(Contract):
    """How far both models rank next tokens alike."""

    top1: Mean = Field(description="share of positions at which both models have the same most likely token")
    top5_overlap: Mean = Field(description="mean share of the five most likely tokens that both models have")
    top10_overlap: Mean
    expected_rank: Mean = Field(
        description="mean rank that the candidate gives the reference's most likely token; 1 is best"
    )


class Entropy(Contract):
    """Mean entropy of the next-token distribution, nats."""

    reference: Mean
    candidate: Mean


class Slice(Contract):
    """The same quantities over a part of the positions: `tokens` finite positions in `documents` documents."""

    tokens: Count
    documents: Count
    kl: Mean
    __annotations__ |= {distance.name: Mean for distance in DISTANCES}
    top1_agreement: Mean
    perplexity_ratio: Mean


class DomainReport(Contract):
    """One domain, in full. `tokens` are the finite positions that the means are over."""

    tokens: Count
    documents: Count
    nonfinite_positions: Count = 0
    divergence: Divergence
    top1_agreement: Mean
    perplexity: Perplexity
    delta_p: DeltaP | None = None
    agreement: Agreement | None = None
    entropy: Entropy | None = None


class BandedSlice(Slice):
    """A slice by position in the window or by the reference's confidence: [low, high)."""

    low: float
    high: float
    share: float = Field(description="share of all scored positions")


class TokenClassSlice(Slice):
    """The positions whose predicted token is of one class. A token may be in several classes."""

    name: str
    title: str
    definition: str
    share: float = Field(description="share of all scored positions that are finite")
    share_of_kl: Number = Field(description="share of the summed KL; null if no position has any KL")
    share_of_kl_ci: Ci | None = Field(
        default=None,
        description="its 95 % interval, clustered as the means are; null if there is a single cluster",
    )
    nonfinite_positions: Count
    difference: Mean | None = Field(
        description="mean KL of the class minus that of all other positions, nats. Null if either has no position"
    )
    p_value: Number = Field(
        description=("of no difference, two-sided, adjusted over all classes with a p-value (Holm)")
    )


class TokenClasses(Contract):
    """The damage by class of token."""

    classes: tuple[TokenClassSlice, ...] = Field(description="classes that some scored position is in")
    absent: tuple[str, ...] = Field(description="titles of the classes that no scored position is in")
    none: Slice | None = Field(description="positions that are in no class; null if there is none")
    multiplicity: str = Field(description="how many classes were tested, and what the intervals and p-values mean")


class Proportion(Contract):
    """A share of prompts with its 95 % interval (Wilson)."""

    count: Count
    of: Count
    share: float
    ci: Ci


class PairedProportion(Contract):
    """The same prompts answered by both models."""

    reference: Proportion
    candidate: Proportion
    difference: float = Field(description="share of the candidate minus that of the reference")
    ci: Ci = Field(description="95 %, score interval for paired shares (Tango)")
    lost: Count = Field(description="prompts that only the reference answers rightly")
    gained: Count = Field(description="prompts that only the candidate answers rightly")
    p_value: float = Field(description="of equal shares, exact (McNemar); not adjusted")


class ToolCallAnswer(Contract):
    """A prompt that the two models answered with different outcomes. It has text only if the job may store it."""

    document: str
    lost: str = Field(description="parsable, valid or right_tool: the first property that only one of the models has")
    by: Literal["reference", "candidate"] = Field(description="the model that has this property")
    reference: str | None
    candidate: str | None
    reason: str = Field(description="what is wrong with the other model's answer, without its text")


class GeneratedToolCalls(Contract):
    """Tool calls that both models generated from the same prompts."""

    prompts: Count
    max_tokens: Count
    cut_off: tuple[Count, Count] = Field(description="answers of reference and candidate that reached max_tokens")
    form: Literal["template", "written"] = Field(
        description="template: the chat template writes the tools; written: it cannot, and the messages contain them"
    )
    parsable: PairedProportion = Field(description="answers with a call that parses")
    valid: PairedProportion = Field(description="answers with calls, each of which names a tool and fits its schema")
    right_tool: PairedProportion | None = Field(
        description=(
            "valid answers whose first call names the tool that the conversation calls; null if no conversation "
            "calls one"
        )
    )
    rule: str
    examples: tuple[ToolCallAnswer, ...]


class Histogram(Contract):
    """Counts of per-token KL between rising edges (nats): counts[i] of edges[i] ≤ kl < edges[i+1]."""

    edges: tuple[float, ...]
    counts: tuple[Count, ...]
    below: Count = Field(description="positions under the first edge, exact zeros included")
    above: Count


class NoiseFloor(Contract):
    """The reference against itself under another batch shape of the same engine."""

    kl: Distribution
    tokens: Count
    batch_shapes: tuple[int, int] = Field(description="windows per batch in the two runs")


class KernelTerm(Contract):
    """KL(dequantized ‖ packed). Dequantized: the candidate's weights in the reference's dtype, on the reference's
    kernels. Packed: the candidate as it ships. Other kernels round differently, and some schemes quantize activations.
    Neither comes from the weights."""

    kl: Distribution
    tokens: Count
    scheme: str = Field(description="how the packed weights are quantized")


class SeverityVerdict(Contract):
    """How the class was found."""

    severity: Severity = Field(
        description=("the worst class that the interval touches; without an interval, the mean's class")
    )
    classes: tuple[Severity, ...] = Field(
        description="every class that the interval touches, mildest first; all classes if there is no interval"
    )
    conclusive: bool = Field(description="whether the interval touches one class only")
    rule: str = Field(description="how the class follows from the numbers, in words")
    thresholds: Thresholds
    excess_kl: Mean = Field(description="mean KL minus noise floor at the same positions, nats")
    minimum_detectable_effect: float | None = Field(
        description=(
            "smallest distance in nats between the true excess KL and a threshold that this text shows. Power 80 %, "
            "level 5 %. Null: no interval"
        )
    )
    smallest_detectable_excess: float | None = Field(
        default=None,
        description=(
            "smallest excess KL in nats that this text shows. Power 80 %, level 5 %. 0 if the noise floor is exactly "
            "0; null: not known"
        ),
    )
    tokens_to_decide: int | None = Field(
        description=(
            "scored tokens of the same kind that would make it conclusive. Null if it is conclusive, or if no number "
            "of tokens is enough"
        )
    )

    @property
    def about_tokens_to_decide(self) -> int | None:
        """`tokens_to_decide` as it is reported: two digits, upwards, since the estimate is no better than that."""
        if self.tokens_to_decide is None:
            return None
        step = int(10 ** max(0, len(str(self.tokens_to_decide)) - 2))
        return -(-self.tokens_to_decide // step) * step


class WorstToken(Contract):
    """A position of large KL. It has text only if the job may store it."""

    document: str
    domain: str
    position: Count = Field(description="index of the predicted token in the document's tokens")
    token_id: Count
    token: str | None
    kl: float
    delta_p: float
    reference_top: str | None
    candidate_top: str | None
    probability_reference: float
    probability_candidate: float


class ContextToken(Contract):
    """A token of a stored passage, with its KL (null if it was not scored)."""

    text: str
    kl: float | None


class Passage(Contract):
    """Text around a worst token."""

    document: str
    domain: str
    start: Count
    tokens: tuple[ContextToken, ...]


class Protocol(Contract):
    """What was scored. Two reports are comparable only if this agrees."""

    window: Count
    stride: Count
    bos: bool
    scored: str
    text_source: str
    text_fingerprint: str
    tokenizer_fingerprint: str
    vocabulary: Count
    chat_template: bool
    reference_context: Count | None = Field(
        default=None,
        description=(
            "the reference's context in tokens, if the windows are longer. Beyond it the reference reads only the "
            "newest tokens of the window"
        ),
    )


class ModelProvenance(Contract):
    """Which weights."""

    model: str
    weights_fingerprint: str
    recipe: tuple[dict[str, object], ...] = ()
    recipe_fingerprint: str | None = None
    scheme: str
    bits_per_weight: float | None
    bytes: Count | None
    file_bytes: Count | None = Field(
        default=None, description="weight files as they are served; more than `bytes` if a smaller form is simulated"
    )
    sparsity: float | None = Field(default=None, description="share of zeros over all changed weights")
    nominal_sparsity: float | None = Field(
        default=None, description="share of zeros that pruning steps asked for; null if no step asked"
    )
    reconstruction_error: float | None = Field(default=None, description="‖W − W'‖ / ‖W‖ over all changed tensors")


class Provenance(Contract):
    """Where the numbers come from."""

    hemostat: str
    engine: str
    execution: str = Field(
        description=(
            "how forward passes ran: eager or compiled, which norms, and the most tokens per batch of the reference"
        )
    )
    device: str
    dtype: str
    precision: str
    head: str
    reference: ModelProvenance
    candidate: ModelProvenance
    protocol: Protocol
    seed: int
    intervals: str
    started_at: float
    finished_at: float
    seconds: dict[str, float]
    reference_from_store: bool
    resumed_windows: Count
    versions: dict[str, str]


class Report(Contract):
    """The envelope: what the report of every kind holds."""

    schema_: Literal["hemostat.report/1"] = Field(default=SCHEMA, alias="schema")
    kind: str
    job: str
    severity: Severity
    verdict: str = Field(description="the answer in plain words")
    decision: SeverityVerdict
    tokens: Count
    documents: Count
    windows: Count
    nonfinite_positions: Count
    noise_floor: NoiseFloor
    not_tested: tuple[Notice, ...] = ()
    warnings: tuple[Notice, ...] = ()
    request: dict[str, object] | None = Field(
        default=None, description="the job's request, to repeat it, without the documents of an inline text"
    )
    provenance: Provenance

    model_config = Contract.model_config | {"populate_by_name": True, "serialize_by_alias": True}

    def labels(self, candidate: ModelProvenance | None = None) -> dict[str, str]:
        """What metrics name the comparison by; the one with this candidate, if the report has several."""
        model = self.provenance.candidate if candidate is None else candidate
        names = (self.provenance.reference.model, model.model, (model.recipe_fingerprint or "none")[:12])
        return dict(zip(COMPARISON, names, strict=True))


class ComparedReport(Report):
    """The report of a kind that compares one candidate as a whole."""

    divergence: Divergence
    top1_agreement: Mean
    perplexity: Perplexity


class Blocks(Contract):
    """The common blocks of one model against the reference."""

    divergence: Divergence
    top1_agreement: Mean
    perplexity: Perplexity
    entropy: Entropy
    domains: dict[str, DomainReport]
    nonfinite_positions: Count
