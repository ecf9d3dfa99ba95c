"""What an attribute job finds inside the two models, block by block of its report: which layer is which, where heads
look, how errors grow.

transformers measures all of it in float32, on the same windows of tokens in both models. Layers count from 0. Border i
is what enters layer i, the last one what leaves the last layer. Nats are KL against the reference per token. Intervals
are 95 %, clustered as `Mean.clusters` says.
"""

from pydantic import Field

from app.contracts.base import Contract
from app.contracts.report import Ci, Count, Mean, Number


class Measured(Contract):
    """The text that a block was measured on."""

    windows: Count
    tokens: Count
    documents: Count


class LayerPair(Contract):
    """A layer of the candidate, and its layer of the reference."""

    reference: Count
    candidate: Count
    similarity: float = Field(
        description=("mean linear CKA of the two layers' outputs and of what they add to the residual stream, 0 to 1")
    )
    stability: Number = Field(
        description=(
            "share of resamplings that match them again, of documents, or of windows if documents are too few; null: "
            "no resampling"
        )
    )


class LayerGap(Contract):
    """Neighbouring layers without a partner: before layer `at_reference` and `at_candidate` of the models."""

    at_reference: Count
    at_candidate: Count
    dropped: tuple[Count, ...] = Field(description="layers of the reference that the candidate lacks")
    inserted: tuple[Count, ...] = Field(description="layers of the candidate only")
    nats: Mean = Field(description="KL of the reference with this gap alone")
    share: Number = Field(description="of `nats` in the whole candidate's KL; shares need not sum to 1")
    share_ci: Ci | None = None
    saved: Mean = Field(description="nats that the candidate gains without this gap alone, paired")
    stability: Number = Field(description="share of resamplings with the same gap")


class LayerAlignment(Contract):
    """Layers matched in order so that their similarity is largest, and what each gap costs."""

    measured: Measured
    reference_layers: Count
    candidate_layers: Count
    pairs: tuple[LayerPair, ...]
    gaps: tuple[LayerGap, ...]
    total: Mean = Field(description="KL of the whole candidate, by transformers")
    matched: Mean = Field(
        description="KL of the reference with all matched layers, embedding and head the candidate's, and no gap"
    )
    control: Number = Field(description="KL of the reference's own layers run again from the first gap: exactly 0")


class AttentionLayer(Contract):
    """A matched pair of layers, over all heads."""

    reference: Count
    candidate: Count
    js: Mean = Field(description="Jensen–Shannon divergence of the attention distributions, nats per query")


class AttentionShift(Contract):
    """How the models' attention differs. Means are over queries, without each window's first query."""

    measured: Measured
    layers: tuple[AttentionLayer, ...]
    js: Mean = Field(description="over all matched layers and heads")


class ActivationBorder(Contract):
    """The error of the candidate's states at a border."""

    reference: Count
    candidate: Count
    relative: Mean = Field(description="mean over tokens of ‖error‖ / ‖state‖")


class ErrorStep(Contract):
    """From border to border: a matched pair of layers, or a gap."""

    reference: tuple[Count, Count]
    candidate: tuple[Count, Count]
    gap: bool
    fresh: Mean = Field(description="‖error that the candidate's layers make of the reference's states‖ / ‖states‖")
    amplification: Mean = Field(description="‖what they make of the error that enters‖ / ‖that error‖")


class ActivationGrowth(Contract):
    """How the error arises and grows. Each window's first token is left out."""

    measured: Measured
    borders: tuple[ActivationBorder, ...]
    steps: tuple[ErrorStep, ...]
    cascade: Mean = Field(
        description=(
            "‖last error‖ / √Σ‖fresh errors‖². 1: layers pass errors on unchanged, and errors have independent "
            "directions. Above 1: layers amplify or align errors"
        )
    )


class Internals(Contract):
    """The two models inside. A block that could not be measured is null; `not_measured` has the reason."""

    alignment: LayerAlignment | None = None
    attention: AttentionShift | None = None
    activations: ActivationGrowth | None = None
    not_measured: tuple[str, ...] = ()
