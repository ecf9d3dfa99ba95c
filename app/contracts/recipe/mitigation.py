"""The three mitigations as steps: they compare, deploy and compose like any other."""

from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from app.contracts.recipe.base import Calibrated, Form, GroupSize, Rank, Sparse, counted, per_group
from app.contracts.recipe.strength import BITS, FALLING

# The widths that a module of a mixture may have.
MIXED_BITS: Final = (3, 4, 5, 6, 8)


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


class QuantizeDynamic(Calibrated):
    """Dynamic quantization scaling: channels smoothed, scales and zero points of groups searched by the error of their
    layer's output and then fitted by their block's, weighted by the divergence's gradient, biases corrected,
    bits given to modules by the nats that each was measured to cost."""

    role = "quantizer"
    graded_by = "bits"
    runner = "workers.mitigation.dynamic_scaling.step:DynamicScaling"
    type: Literal["quantize.dynamic"]
    bits: Annotated[float, Field(ge=2, le=8), BITS] = Field(
        description="Mean code bits of a weight; with `mixed`, modules have 3, 4, 5, 6 or 8."
    )
    group_size: GroupSize | None = 64
    symmetric: bool = False
    activation_bits: Annotated[Literal[4, 8], BITS] | None = Field(
        default=None, description="null: activations stay as they are."
    )
    mixed: bool = Field(
        default=False,
        description="Whether modules may have different bits and, simulated, a few input columns of eight.",
    )
    smooth: bool = Field(
        default=True, description="Whether channels are smoothed, where the search finds that it pays."
    )
    tune: Literal["scales", "rounding"] = Field(
        default="rounding",
        description="What is fitted and tuned with norms and biases: scales and, in blocks, zero points alone, or "
        "rounding too (16 bytes of memory a weight: of a block where blocks are fitted, of all where all is tuned).",
    )
    block_epochs: Annotated[int, Field(ge=0, le=1000), FALLING] = Field(
        default=3,
        description="Times that each rounded block is trained on the text towards what the source's block gives; 0: "
        "not at all.",
    )
    tuning_steps: Annotated[int, Field(ge=0, le=100_000), FALLING] = Field(
        default=0, description="Steps of tuning on the whole model's divergence, one window each; 0: none."
    )
    form: Form = "simulated"

    @property
    def code_bits(self) -> float:
        """Of a mixture, those of the module with the fewest."""
        return min(self.bits, MIXED_BITS[0]) if self.mixed else self.bits

    @model_validator(mode="after")
    def _whole_bits(self) -> "QuantizeDynamic":
        if not self.mixed and self.bits != int(self.bits):
            raise ValueError("bits that are no whole number need mixed")
        return self

    def words(self) -> str:
        """See `Step`."""
        widths = f"{self.bits:g}-bit" + (" on average, mixed," if self.mixed else "")
        inputs = f" A{self.activation_bits}" if self.activation_bits else ""
        fitted = f", blocks fitted over {counted(self.block_epochs, 'epoch')}" if self.block_epochs else ""
        packed = ", packed" if self.form == "packed" else ""
        return f"{widths} dynamic scaling{inputs}, {per_group(self.group_size)}{fitted}{packed}"


class RepairLowrank(Calibrated):
    """Low-rank repair: to every linear layer a product of two thin matrices is added that takes back what was lost.

    The result has it merged; beside it lies the same as a PEFT LoRA, in the folder `adapter`.
    """

    role = "repair"
    runner = "workers.mitigation.repair.step:RepairStep"
    type: Literal["repair.lowrank"]
    calibration_windows: Annotated[int, Field(ge=1, le=4096), FALLING] = Field(
        default=64, description="The last eighth of them is not trained on and decides what is kept."
    )
    rank: Annotated[Rank, FALLING] = Field(
        description="Mean rank over the modules, by bytes; none has more than four times it."
    )
    allocation: Literal["uniform", "nats"] = Field(
        default="nats", description="The same rank everywhere, or by nats saved a byte."
    )
    block_epochs: Annotated[int, Field(ge=0, le=1000), FALLING] = Field(
        default=3,
        description="Times that each block's part is trained on the text, after the closed form, towards what the "
        "reference's would give; 0: not at all.",
    )
    distill_steps: Annotated[int, Field(ge=0, le=1_000_000), FALLING] = Field(
        default=60, description="Steps of distillation from the reference after that; 0: none."
    )
    distill_s: Annotated[float, Field(gt=0, le=86400), FALLING] | None = Field(
        default=None, description="At most so many seconds of it. Makes results time-dependent."
    )
    own_windows: Annotated[int, Field(ge=0, le=4096), FALLING] = Field(
        default=0,
        description="Windows that the reference writes itself, fitted on beside the calibration text: what is taken "
        "back then holds on other text too.",
    )
    iterations: Annotated[int, Field(ge=1, le=10), FALLING] = Field(
        default=1,
        description="More than once: what the repair carries is taken out of the weights and the steps before, which "
        "must look at weights alone, are done again on the rest.",
    )

    def words(self) -> str:
        """See `Step`."""
        own = f"{counted(self.own_windows, 'window')} of the reference's own text" if self.own_windows else ""
        fitted = f"blocks fitted over {counted(self.block_epochs, 'epoch')}" if self.block_epochs else ""
        trained = f"{self.distill_steps} steps of distillation" if self.distill_steps else ""
        how = ", ".join(filter(None, (own, fitted, trained))) or "closed form alone"
        return f"low-rank repair, mean rank {self.rank}, {how}"
