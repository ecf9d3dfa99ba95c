"""Weights that become zero, and parts that go."""

from collections.abc import Mapping
from math import ceil
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

# What a range times M may be above one half for rounding alone.
_HAIR: Final = 1e-6
# Positions of one step of recovery, at most: at least one window.
RECOVERY_TOKENS: Final = 512


class CalibratedSparse(Calibrated, Sparse):
    """A share of zeros chosen with a look at activations."""

    allocation: Allocation = Field(
        default="uniform",
        description="The same share in each layer, or `owl`: more where a layer has fewer outliers; beside a pattern "
        "each layer keeps an N of its own of the same M, N on average.",
    )
    owl_threshold: Annotated[float, Field(gt=1, le=100), UNKNOWN] = Field(
        default=5.0, description="OWL's M: an outlier is above so many times the layer's mean score."
    )
    owl_range: Annotated[float, Field(ge=0, le=0.5), UNKNOWN] = Field(
        default=0.08,
        description="OWL's lambda: no layer's share is further than this from the one asked for; beside a pattern, "
        "before it is rounded to a whole N.",
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
            found += self._one_n()
        if self.allocation != "owl":
            found.append(Idle(("owl_threshold", "owl_range"), ("allocation",), "it is OWL's", 'give allocation "owl"'))
        return found

    def _one_n(self) -> list[Idle]:
        """Where no N is nearer to OWL's share of a layer times M than the pattern's, whatever its outliers.

        At one half, another N may be as near and none nearer: what is made would hang on the order of layers.
        """
        kept, of = self.n_of_m()
        if self.owl_reach * of > 0.5 + _HAIR:
            return []
        if kept in (1, of - 1):
            why = f"each layer keeps at least 1 and less than {of} of every {of}, on average {kept}: all keep {kept}"
            hint = "give a pattern that keeps 2 to M - 2 of every M, such as 4:8"
            return [Idle(("allocation",), ("pattern",), why, hint)]
        why = f"within owl_range {self.owl_range:g} every layer's share rounds to {self.pattern}"
        hint = f"give owl_range more than {ceil(5000 / of) / 10000:g}"
        return [Idle(("allocation",), ("pattern", "owl_range"), why, hint)]


class PruneMagnitude(CalibratedSparse):
    """Zeros the weights of smallest magnitude: a share `sparsity` of each `scope`, or N of every M along the input.

    It looks at text where `allocation` is `owl` alone.
    """

    streamed = True
    runner = "workers.surgery.steps:MagnitudeRunner"
    variants: ClassVar[Mapping[str, str]] = {"owl": "workers.surgery.prune_magnitude_owl:OwlMagnitude"}
    title = "magnitude"
    reads_by = ("allocation", 'with allocation "owl" alone')
    type: Literal["prune.magnitude"]
    scope: Literal["row", "layer", "global"] = Field(
        default="layer", description="Over what the share is taken: an output row, a weight matrix, or all of them."
    )

    @model_validator(mode="after")
    def _owl_shares_are_of_layers(self) -> "PruneMagnitude":
        if self.allocation == "owl" and self.scope == "global":
            raise ValueError("allocation owl gives each layer a share of its own: scope is row or layer beside it")
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
    """Wanda: weights of the smallest |W|·‖X‖ go, compared within `scope`."""

    runner = "workers.surgery.prune_wanda:Wanda"
    title = "Wanda"
    type: Literal["prune.wanda"]
    scope: Literal["row", "layer"] = "row"


class PruneSparsegpt(CalibratedSparse):
    """SparseGPT: weights go column by column, and those that stay make the error good (second-order)."""

    runner = "workers.surgery.prune_sparsegpt:SparseGpt"
    title = "SparseGPT"
    type: Literal["prune.sparsegpt"]
    damping: Annotated[float, Field(gt=0, le=1), UNKNOWN] = 0.01
    scope: Literal["layer", "row"] = Field(
        default="layer", description="Within each block of columns the share is taken over the matrix, or each row."
    )


class PruneRia(CalibratedSparse):
    """RIA: relative importance of a weight in its row and column, times the activation norm to a power."""

    runner = "workers.surgery.prune_ria:Ria"
    title = "RIA"
    type: Literal["prune.ria"]
    scope: Literal["row", "layer"] = "row"
    power: Annotated[float, Field(ge=0, le=2), UNKNOWN] = Field(default=0.5, description="RIA's a: the power of ‖X‖.")


class _Structured(Calibrated):
    """Parts that go: so many, a share, or those named."""

    role = "pruner"

    ratio: Sparsity | None = Field(default=None, description="Share that goes, rounded to whole parts.")
    count: Annotated[int, Field(ge=1, le=1_000_000), RISING] | None = Field(default=None, description="How many go.")

    def words(self) -> str:
        """See `Step`."""
        share = f"{percent(self.ratio)} of the {self.title}s"
        return f"{share if self.count is None else counted(self.count, self.title)} dropped"


class PruneLayers(_Structured):
    """Whole decoder layers go: those named in `layers`, else those whose input and output are most alike."""

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
    """Attention heads go, a group of query heads with its key and value head; the checkpoint is really smaller.

    `count` is in query heads; a share is rounded to whole groups. Every layer loses the same number, since an engine
    knows one number for all of them.
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
    """Inner channels of the MLP go; every layer loses the same number, and the checkpoint is really smaller."""

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
    """Gradient-aware pruning: what goes is chosen by weights, activations and gradients of the divergence from the
    reference; what stays is reconstructed, and trained for a while where `recovery_s` allows."""

    replaced_by = None
    runner = "workers.mitigation.gradient_pruning.step:GradientPruning"
    title = "gradient-aware"
    type: Literal["prune.gradient"]
    passes: Annotated[int, Field(ge=1, le=100), FALLING] = Field(
        default=4, description="Over how many passes, of rising sparsity, the gradients are gathered."
    )
    budget: Literal["uniform", "gradient"] = Field(
        default="gradient", description="The same share in every module, or one that its gradients decide."
    )
    reconstruct: bool = Field(default=True, description="Whether weights that stay make the error good.")
    reconstruct_epochs: Annotated[int, Field(ge=1, le=100), FALLING] = Field(
        default=6, description="How often the calibration text is gone over while a block's output is reconstructed."
    )
    recovery_s: Annotated[float, Field(ge=0, le=86400), FALLING] = Field(
        default=0.0, description="Seconds of training of the weights that stay; 0: none. Makes results time-dependent."
    )
    recovery_steps: Annotated[int, Field(ge=0, le=1_000_000), FALLING] | None = Field(
        default=None, description="At most so many steps of it: with a number here, a result can be had again."
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
    def trained_tokens(self) -> int:
        """See `Step`."""
        rebuilt = self.reconstruct_epochs if self.reconstruct else 0
        steps = 0 if self.recovery_s else self.recovery_steps or 0
        return (self.passes + rebuilt) * self.text_tokens + steps * max(RECOVERY_TOKENS, self.calibration_window)

    @property
    def trained_seconds(self) -> float:
        """See `Step`."""
        return self.recovery_s
