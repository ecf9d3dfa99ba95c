"""What an attribute job finds inside the two models, block by block of its report: which layer is which, where heads
look, how errors grow, which experts are chosen.

All of it is measured by transformers on `windows` windows of `tokens` tokens in all, in float32, on the same tokens in
both models. Layers, heads, channels and experts are counted from 0; border i is what enters layer i, the last one what
leaves the last layer. Nats are KL against the reference, a token. Intervals are 95 %, clustered as `Mean.clusters`
says.
"""

from typing import Literal

from pydantic import Field

from app.contracts.base import Contract
from app.contracts.report import Ci, Count, Mean, Number


class Measured(Contract):
    """The text that a block was measured on."""

    windows: Count
    tokens: Count
    documents: Count


class SiteClass(Contract):
    """What a part costs on the tokens of one class: those of the positions that its nats are of whose predicted token
    is in it, and where logits were finite. A token may be in several classes."""

    name: str = Field(description="one of the report's `token_classes`; `none`: the tokens that are in no class")
    tokens: Count
    nats: Mean = Field(
        description="mean over these tokens, nats per token, its interval clustered as that of the part's nats; none "
        "where the class is in fewer than six documents (windows, where the text has fewer documents than that)"
    )
    share: Number = Field(description="of the nats summed over all of the part's tokens; null where these are 0")
    share_ci: Ci | None = None
    restored: Mean | None = Field(
        default=None,
        description="of a part that was restored: nats per token of the class that the candidate gains, over the "
        "whole subset; null: not restored, or nothing of the class is in it",
    )
    difference: Mean | None = Field(
        default=None,
        description="`nats` minus the mean over all other tokens of the part, with its own 95 % interval; null: not "
        "among the parts that were looked into, or one side has no token. Without an interval where `nats` have none",
    )
    p_value: Number = Field(
        default=None,
        description="of no difference, two-sided, adjusted over all classes of all parts that have one (Holm)",
    )


class LayerPair(Contract):
    """A layer of the candidate, and its layer of the reference."""

    reference: Count
    candidate: Count
    similarity: float = Field(description="mean linear CKA of what the two leave and of what they add, 0 to 1")
    stability: Number = Field(
        description="share of resamplings of whole documents (windows, where documents are too few) in which they "
        "are matched again; null: nothing was resampled, see `LayerAlignment.resamplings`"
    )


class UnmatchedLayer(Contract):
    """A layer without a partner: `layer` of the reference where it was dropped, of the candidate otherwise."""

    kind: Literal["dropped", "duplicate", "identity", "inserted"]
    layer: Count
    of: Count | None = Field(description="the reference's layer whose copy it is")
    distance: float | None = Field(description="‖W − W'‖ / ‖W'‖ from the nearest layer of the reference")
    added: float = Field(description="root mean square of what it adds over that of what enters it; 0: nothing")


class LayerGap(Contract):
    """Neighbouring layers without a partner: before layer `at_reference` and `at_candidate` of the models."""

    at_reference: Count
    at_candidate: Count
    layers: tuple[UnmatchedLayer, ...]
    nats: Mean = Field(description="KL of the reference with this gap alone")
    share: Number = Field(description="of `nats` in the whole candidate's KL; shares need not sum up")
    share_ci: Ci | None = None
    saved: Mean = Field(description="nats that the candidate gains without this gap alone, paired")
    similarity_before: float = Field(description="CKA of the two models' states that enter the gap")
    similarity_after: float
    stability: Number = Field(description="as of a pair: share of resamplings with the same gap")
    classes: tuple[SiteClass, ...] = Field(
        description="how `nats` spread over kinds of token, and `saved` (`restored` of each); empty: parts were swapped"
    )


class LayerAlignment(Contract):
    """Layers matched in order so that their similarity is largest, and what each gap costs."""

    measured: Measured
    reference_layers: Count
    candidate_layers: Count
    resamplings: Count = Field(
        description="number behind each stability; 0: fewer than six clusters, of which none can be drawn again, and "
        "each stability is null"
    )
    pairs: tuple[LayerPair, ...]
    gaps: tuple[LayerGap, ...]
    similarity: tuple[tuple[float, ...], ...] = Field(description="[reference][candidate], of all pairs of layers")
    gap_price: float = Field(description="two layers are matched where that raises the sum by more than twice this")
    total: Mean = Field(description="KL of the whole candidate, by transformers")
    matched: Mean = Field(
        description="KL of the reference with all matched layers, embedding and head the candidate's, and no gap"
    )
    control: Number = Field(description="KL of the reference's own layers run again from the first gap: exactly 0")
    additivity: Number = Field(description="total over the sum of the gaps' and the matched layers' nats")
    additivity_ci: Ci | None = None
    classes: tuple[SiteClass, ...] = Field(
        description="how `total` spreads over kinds of token; empty: parts were swapped"
    )


class Both(Contract):
    """A figure of the two models, with intervals."""

    reference: Number
    candidate: Number
    reference_ci: Ci | None = None
    candidate_ci: Ci | None = None


class BothMeans(Contract):
    """A figure of the two models with intervals."""

    reference: Mean
    candidate: Mean


class AttentionHead(Contract):
    """One head of the candidate; `partner` is the reference's that it is compared with. All intervals are clustered as
    that of `js`."""

    head: Count
    partner: Count
    js: Mean = Field(description="Jensen–Shannon divergence of the two attention distributions, nats a query")
    kl: Number
    kl_ci: Ci | None = None
    tv: Number
    tv_ci: Ci | None = None
    sink: Both
    entropy: Both
    range: Both


class AttentionLayer(Contract):
    """A matched pair of layers, over all heads."""

    reference: Count
    candidate: Count
    js: Mean
    kl: Mean
    tv: Mean
    sink: BothMeans = Field(description="share of attention on the first token of the window")
    entropy: BothMeans = Field(description="nats")
    range: BothMeans = Field(description="mean distance to what is attended in tokens, the first token left out")
    heads: tuple[AttentionHead, ...]


class AttentionShift(Contract):
    """Where the models look. Means are over queries, each window's first left out."""

    measured: Measured
    layers: tuple[AttentionLayer, ...]
    js: Mean = Field(description="over all matched layers and heads")
    sink: BothMeans


class OutlierChannel(Contract):
    """A channel of the reference's states, `ratio` times the median channel's root mean square."""

    channel: Count
    ratio: float
    error_share: float = Field(description="of the squared error at this border")


class ActivationBorder(Contract):
    """The error of the candidate's states at a border."""

    reference: Count
    candidate: Count
    relative: Mean = Field(description="mean over tokens of ‖error‖ / ‖state‖")
    sqnr: Mean | None = Field(description="dB, over all tokens; null: there is no error")
    cosine: Mean
    outlier_channels: Count
    outlier_share: Number = Field(description="of the squared error that is in outlier channels")
    outlier_share_ci: Ci | None = Field(
        description="clustered as that of `relative`, with the channels as given; null: too few clusters"
    )
    outliers: tuple[OutlierChannel, ...] = Field(description="the largest")


class ErrorStep(Contract):
    """From border to border: a matched pair of layers, or a gap."""

    reference: tuple[Count, Count]
    candidate: tuple[Count, Count]
    gap: bool
    fresh: Mean = Field(description="‖error that the candidate's layers make of the reference's states‖ / ‖states‖")
    amplification: Mean = Field(description="‖what they make of the error that enters‖ / ‖that error‖")
    growth: Mean = Field(description="‖error that leaves‖ / ‖error that enters‖")
    direct: Mean | None = Field(default=None, description="KL where no later layer sees the fresh error, nats")
    final: Mean | None = Field(default=None, description="KL where all later layers of the reference see it, nats")
    repaired: Mean | None = Field(default=None, description="(direct − final) / direct; negative: made worse")


class ActivationGrowth(Contract):
    """How the error comes about and grows. Each window's first token is left out of all but the KLs."""

    measured: Measured
    borders: tuple[ActivationBorder, ...]
    steps: tuple[ErrorStep, ...]
    cascade: Mean = Field(
        description="‖last error‖ / √Σ‖fresh errors‖²: 1 where they are handed on unchanged and do not add up in one "
        "direction, more where layers amplify or align them"
    )
    repair_measured: Measured | None = None


class RoutingLayer(Contract):
    """One router."""

    layer: Count
    changed: Mean = Field(
        description="|S △ Ŝ| / |S ∪ Ŝ| of the experts S and Ŝ that the two models choose for a token: of those that "
        "either chooses, the share that one alone does"
    )
    any_changed: Mean = Field(description="share of tokens with such a change")
    own: Mean = Field(description="`changed` by the candidate's router on the reference's states: its own part")
    divergence: Mean = Field(description="KL of the softmax over all experts, nats")
    load_shift: Mean = Field(description="total variation between the two models' shares of all choices by expert")
    margin_changed: Mean = Field(description="margin between the last expert chosen and the first not, nats of logit")
    margin_same: Mean = Field(description="the same, of tokens whose choice stayed")
    load_reference: tuple[float, ...] = Field(description="share of all choices, by expert")
    load_candidate: tuple[float, ...]
    load_reference_ci: tuple[Ci | None, ...] = Field(description="clustered as `changed` is")
    load_candidate_ci: tuple[Ci | None, ...]


class RoutingShift(Contract):
    """Which experts tokens go to."""

    measured: Measured
    experts: Count
    chosen: tuple[Count, Count] = Field(description="experts a token, in reference and candidate")
    changed: Mean = Field(description="over all routers")
    layers: tuple[RoutingLayer, ...]


class Internals(Contract):
    """All blocks; one that could not be measured is null, and `not_measured` says why."""

    alignment: LayerAlignment | None = None
    attention: AttentionShift | None = None
    activations: ActivationGrowth | None = None
    routing: RoutingShift | None = None
    not_measured: tuple[str, ...] = ()
