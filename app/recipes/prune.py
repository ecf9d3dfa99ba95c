"""Weights that become zero, and parts that go."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, model_validator

from app.recipes.base import (
    Allocation,
    Calibrated,
    Idle,
    Sparse,
    Sparsity,
    counted,
    layers_in_words,
    percent,
)
from app.recipes.strength import FALLING, RISING, UNKNOWN

# Positions of one step of recovery, at most: at least one window.
RECOVERY_TOKENS: Final = 512


class CalibratedSparse(Calibrated, Sparse):
    """A share of zeros chosen with a look at activations."""

    weighed = 5.0  # sorted, above all

    allocation: Allocation = Field(
        default="uniform",
        description="`uniform`: the same share per layer; `owl`: layers with many outliers lose less. With a "
        "pattern, each layer then keeps its own N of M.",
    )
    owl_threshold: Annotated[float, Field(gt=1, le=100), UNKNOWN] = Field(
        default=5.0, description="An outlier is above this many times the layer's mean score (OWL's M)."
    )
    owl_range: Annotated[float, Field(ge=0, le=0.5), UNKNOWN] = Field(
        default=0.08,
        description="Largest distance of a layer's share from the mean (OWL's λ); with a pattern, before rounding "
        "to a whole N.",
    )

    @property
    def owl_reach(self) -> float:
        """How far from `share` OWL's share of a layer may be: `owl_range`; beside a pattern N:M less where that would
        leave a layer less than 1 or more than M - 1 of every M."""
        if self.pattern is None:
            return self.owl_range
        kept, of = self.n_of_m()
        return min(self.owl_range, (kept - 1) / of, (of - 1 - kept) / of)

    def words(self) -> str:
        """See `Step`."""
        owl = ", OWL" if self.allocation == "owl" else ""
        if self.pattern:
            return super().words() + (f" on average{owl}" if owl else "")
        scope = getattr(self, "scope", "")
        return super().words() + (" over all weights" if scope == "global" else f" per {scope}") + owl

    def idle(self) -> list[Idle]:
        """See `Step`."""
        found = super().idle()
        if self.pattern is not None:
            why = f"pattern {self.pattern} zeros so many of every run of a row, whatever the scope"
            found.append(Idle(("scope",), ("pattern",), why, "give sparsity in place of pattern"))
        if self.allocation != "owl":
            found.append(Idle(("owl_threshold", "owl_range"), ("allocation",), "it is OWL's", 'give allocation "owl"'))
        return found


class PruneMagnitude(CalibratedSparse):
    """Zeros the weights of smallest magnitude.

    It reads text only if `allocation` is `owl`.
    """

    streamed = True
    runner = "workers.surgery.steps:MagnitudeRunner"
    variants: ClassVar[Mapping[str, str]] = {"owl": "workers.surgery.prune_magnitude_owl:OwlMagnitude"}
    title = "magnitude"
    reads_by = ("allocation", 'with allocation "owl" alone')
    type: Literal["prune.magnitude"]
    scope: Literal["row", "layer", "global"] = Field(
        default="layer",
        description="The share is per output row, per weight matrix, or of all weights; not with a pattern.",
    )

    @model_validator(mode="after")
    def _owl_shares_are_of_layers(self) -> "PruneMagnitude":
        if self.allocation == "owl" and self.scope == "global":
            raise ValueError("allocation owl gives each layer its own share, so scope must be row or layer")
        return self

    @property
    def reads_text(self) -> bool:
        """OWL's shares alone are taken from the text."""
        return self.allocation == "owl"

    @property
    def local(self) -> bool:
        """Where the share is one of a weight."""
        return self.allocation != "owl" and self.scope != "global"


class PruneWanda(CalibratedSparse):
    """Wanda: zeros the weights of smallest |W|·‖X‖."""

    runner = "workers.surgery.prune_wanda:Wanda"
    title = "Wanda"
    type: Literal["prune.wanda"]
    scope: Literal["row", "layer"] = Field(
        default="row", description="The share is per output row or per weight matrix; not with a pattern."
    )


class PruneSparsegpt(CalibratedSparse):
    """SparseGPT: zeros weights column by column; the other weights compensate the error (second order)."""

    runner = "workers.surgery.prune_sparsegpt:SparseGpt"
    squares = True
    weighed = 30.0
    products = 1.0
    factors = 1.5
    title = "SparseGPT"
    type: Literal["prune.sparsegpt"]
    damping: Annotated[float, Field(gt=0, le=1), UNKNOWN] = Field(
        default=0.01, description="Share of the mean diagonal that is added to the second moment of the inputs."
    )
    scope: Literal["layer", "row"] = Field(
        default="layer",
        description="The share is per weight matrix or per output row, within each block of columns; not with a "
        "pattern.",
    )


class PruneRia(CalibratedSparse):
    """RIA: zeros the weights of smallest importance relative to their row and column, times the activation norm."""

    runner = "workers.surgery.prune_ria:Ria"
    title = "RIA"
    type: Literal["prune.ria"]
    scope: Literal["row", "layer"] = Field(
        default="row", description="The share is per output row or per weight matrix; not with a pattern."
    )
    power: Annotated[float, Field(ge=0, le=2), UNKNOWN] = Field(default=0.5, description="Exponent of ‖X‖ (RIA's a).")


class _Structured(Calibrated):
    """Parts that go: so many, a share, or those named."""

    role = "pruner"

    ratio: Sparsity | None = Field(default=None, description="Share of the parts to remove, rounded to whole parts.")
    count: Annotated[int, Field(ge=1, le=1_000_000), RISING] | None = Field(
        default=None, description="Number of parts to remove."
    )

    def words(self) -> str:
        """See `Step`."""
        share = f"{percent(self.ratio)} of the {self.title}s"
        return f"{share if self.count is None else counted(self.count, self.title)} dropped"


class PruneLayers(_Structured):
    """Removes decoder layers: the named ones, or those whose input and output are most alike."""

    runner = "workers.surgery.prune_layers:DropLayers"
    title = "layer"
    reads_by = ("layers", "where no layers are named")
    type: Literal["prune.layers"]

    @model_validator(mode="after")
    def _one_way(self) -> "PruneLayers":
        if [self.layers, self.ratio, self.count].count(None) != 2:
            raise ValueError("give one of layers, count and ratio")
        return self

    @property
    def reads_text(self) -> bool:
        """Layers that are named go whatever the text says."""
        return self.layers is None

    def label(self) -> str:
        """See `Step`."""
        if self.count is None and self.ratio is None:
            return f"{layers_in_words(self.layers) if self.layers else 'layers'} dropped"
        return self.words()


class PruneHeads(_Structured):
    """Removes groups of query heads with their key and value head.

    `count` is in query heads; a share is rounded to whole groups. Every layer loses the same number, because an engine
    has one number for all layers.
    """

    runner = "workers.surgery.prune_heads:DropHeads"
    title = "attention head"
    type: Literal["prune.heads"]

    @model_validator(mode="after")
    def _one_way(self) -> "PruneHeads":
        if (self.ratio is None) == (self.count is None):
            raise ValueError("give either count or ratio")
        return self

    def words(self) -> str:
        """See `Step`."""
        return f"{super().words()} in every layer"


class PruneChannels(_Structured):
    """Removes inner channels of the MLP, the same number in every layer."""

    runner = "workers.surgery.prune_channels:DropChannels"
    title = "MLP channel"
    type: Literal["prune.channels"]

    @model_validator(mode="after")
    def _one_way(self) -> "PruneChannels":
        if (self.ratio is None) == (self.count is None):
            raise ValueError("give either count or ratio")
        return self

    def words(self) -> str:
        """See `Step`."""
        return f"{super().words()} in every layer"


class PruneGradient(Calibrated, Sparse):
    """Gradient-aware pruning: chooses weights by magnitude, activations and gradients of the divergence, then trains
    the rest."""

    replaced_by = None
    squares = True
    taped = True
    kept_bytes = 8
    runner = "workers.mitigation.gradient_pruning.step:GradientPruning"
    title = "gradient-aware"
    type: Literal["prune.gradient"]
    passes: Annotated[int, Field(ge=1, le=100), FALLING] = Field(
        default=4, description="Passes of gradients, at rising sparsity."
    )
    budget: Literal["uniform", "gradient"] = Field(
        default="gradient",
        description="Share per module by its gradients, at most 15 percentage points from the asked share; or "
        "`uniform`. A pattern is always uniform.",
    )
    reconstruct: bool = Field(default=True, description="Trains each block towards the reference's block.")
    reconstruct_epochs: Annotated[int, Field(ge=1, le=100), FALLING] = Field(
        default=6, description="Epochs of this training."
    )
    recovery_s: Annotated[float, Field(ge=0, le=86400), FALLING] = Field(
        default=0.0,
        description="Seconds of training of the whole model; 0: none. The result then depends on the machine.",
    )
    recovery_steps: Annotated[int, Field(ge=0, le=1_000_000), FALLING] | None = Field(
        default=None, description="Limit of this training in steps; without `recovery_s` the result is reproducible."
    )

    def words(self) -> str:
        """See `Step`."""
        if self.recovery_steps:
            return f"{super().words()}, {self.recovery_steps} steps of recovery"
        return super().words() + (f", {self.recovery_s:g} s of recovery" if self.recovery_s else "")

    def idle(self) -> list[Idle]:
        """See `Step`."""
        if self.reconstruct:
            return super().idle()
        return [Idle(("reconstruct_epochs",), ("reconstruct",), "reconstruct is false", "give reconstruct true")]

    @property
    def holds_model(self) -> bool:
        """While it trains all layers at once."""
        return self.recovery_s > 0 or bool(self.recovery_steps)

    @property
    def trained_bytes(self) -> int:
        """What it pruned (2), a mask (1), gradients (2 and 4), and in float32 master (4) and moments (8)."""
        return 21

    @property
    def trained_tokens(self) -> int:
        """See `Step`."""
        rebuilt = self.reconstruct_epochs if self.reconstruct else 0
        steps = 0 if self.recovery_s else self.recovery_steps or 0
        return (self.passes + rebuilt) * self.text_tokens + steps * max(RECOVERY_TOKENS, self.calibration_window)

    @property
    def trained_seconds(self) -> float:
        """See `Step`."""
        return self.recovery_s
