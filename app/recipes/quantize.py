"""Weights, activations, keys and values on fewer bits."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, model_validator

from app.recipes.base import (
    Bits,
    Calibrated,
    Form,
    Grouped,
    GroupSize,
    Idle,
    Step,
    counted,
    per_group,
)
from app.recipes.strength import BITS, FALLING, UNKNOWN


class QuantizeRtn(Grouped):
    """Round to nearest. Asymmetric: min/max, 2^bits − 1 steps, rounded zero point. Symmetric: absmax/(2^(bits−1) − 1).

    `group_size` runs along the input dimension and must divide it; null is one scale an output channel.
    """

    streamed = True
    runner = "workers.surgery.steps:RtnRunner"
    variants: ClassVar[Mapping[str, str]] = {"packed": "workers.surgery.quantize_rtn:RtnPacked"}
    title = "RTN"
    type: Literal["quantize.rtn"]


class QuantizeGptq(Calibrated, Grouped):
    """GPTQ: columns rounded one after the other, the error of each made good by those to come (second-order)."""

    runner = "workers.surgery.quantize_gptq:Gptq"
    title = "GPTQ"
    type: Literal["quantize.gptq"]
    damping: Annotated[float, Field(gt=0, le=1), UNKNOWN] = Field(
        default=0.01, description="Share of the mean of the Hessian's diagonal that is added to it."
    )
    act_order: bool = Field(default=True, description="Columns of largest activations first (groups stay in place).")


class QuantizeAwq(Calibrated, Grouped):
    """AWQ: channels scaled by their activations before rounding, the exponent searched for each layer's output."""

    runner = "workers.surgery.quantize_awq:Awq"
    title = "AWQ"
    type: Literal["quantize.awq"]


class QuantizeSmoothquant(Calibrated):
    """SmoothQuant: activation outliers moved into the weights, then 8-bit weights and activations."""

    role = "quantizer"
    replaced_by = "quantize.dynamic"
    runner = "workers.surgery.quantize_smoothquant:Smoothquant"
    type: Literal["quantize.smoothquant"]
    bits: Bits = 8
    activation_bits: Annotated[Literal[4, 8], BITS] = 8
    dynamic: bool = Field(default=True, description="Activation scales a token at run time, or one fixed by the text.")
    strength: Annotated[float, Field(ge=0, le=1), UNKNOWN] = Field(default=0.5, description="SmoothQuant's alpha.")
    form: Form = "simulated"

    @property
    def code_bits(self) -> float:
        """As asked."""
        return float(self.bits)

    def words(self) -> str:
        """See `Step`."""
        when = "dynamic" if self.dynamic else "static"
        packed = ", packed" if self.form == "packed" else ""
        return f"SmoothQuant W{self.bits}A{self.activation_bits}, {when}, strength {self.strength:#.3g}{packed}"


class QuantizeFp8(Calibrated):
    """8-bit floats (e4m3): weights a channel; activations untouched, or scaled a token at run time, or fixed."""

    role = "quantizer"
    streamed = True
    runner = "workers.surgery.quantize_fp8:Fp8Runner"
    variants: ClassVar[Mapping[str, str]] = {
        "packed": "workers.surgery.quantize_fp8:Fp8Packed",
        "dynamic": "workers.surgery.quantize_fp8:Fp8Simulated",
        "static": "workers.surgery.quantize_fp8:Fp8Simulated",
    }
    reads_by = ("activations", 'with activations "static" alone')
    type: Literal["quantize.fp8"]
    activations: Literal["none", "dynamic", "static"] = "none"
    form: Form = "simulated"

    @property
    def reads_text(self) -> bool:
        """Fixed scales alone are taken from the text."""
        return self.activations == "static"

    @property
    def code_bits(self) -> float:
        """The one width."""
        return 8.0

    def words(self) -> str:
        """See `Step`."""
        inputs = "" if self.activations == "none" else f", {self.activations} activations"
        return f"FP8 weights{inputs}{', packed' if self.form == 'packed' else ''}"


class QuantizeNf4(Step):
    """NF4: a grid of 16 quantiles of the normal distribution, scaled by the absolute maximum of each group."""

    role = "quantizer"
    replaced_by = "quantize.dynamic"
    streamed = True
    runner = "workers.surgery.quantize_nf4:Nf4Runner"
    type: Literal["quantize.nf4"]
    group_size: GroupSize | None = 64

    @property
    def code_bits(self) -> float:
        """The one width."""
        return 4.0

    def words(self) -> str:
        """See `Step`."""
        return f"NF4, {per_group(self.group_size)}"


class QuantizeActivations(Calibrated):
    """Inputs of linear layers on an even grid: simulated at run time, weights untouched."""

    role = "quantizer"
    runner = "workers.surgery.quantize_activations:ActivationsStep"
    reads_by = ("dynamic", "with dynamic false alone")
    rules = "runtime"
    type: Literal["quantize.activations"]
    bits: Annotated[Literal[4, 8], BITS]
    dynamic: bool = Field(default=True, description="A scale a token at run time, or one fixed by the text.")
    symmetric: bool = True

    @property
    def reads_text(self) -> bool:
        """Fixed scales come from the text."""
        return not self.dynamic

    def words(self) -> str:
        """See `Step`."""
        when = "a grid a token" if self.dynamic else "fixed grids"
        return f"{self.bits}-bit activations, {when}, {'symmetric' if self.symmetric else 'asymmetric'}"


class QuantizeKvCache(Step):
    """Keys and values on fewer bits: a dtype that vLLM stores them in, or simulated bits for each apart."""

    role = "quantizer"
    runner = "workers.surgery.quantize_kv_cache:KvCacheStep"
    rules = "runtime"
    type: Literal["quantize.kv_cache"]
    dtype: Literal["fp8", "fp8_e4m3", "fp8_e5m2"] | None = None
    k_bits: Bits | None = None
    v_bits: Bits | None = None
    group_size: GroupSize | None = Field(
        default=None, description="Values of a head that share a scale; null: all of a head and token."
    )
    symmetric: bool = False

    @model_validator(mode="after")
    def _one_way(self) -> "QuantizeKvCache":
        simulated = self.k_bits is not None or self.v_bits is not None
        if (self.dtype is not None) == simulated:
            raise ValueError("give either dtype, or k_bits and v_bits (or one of these)")
        return self

    def words(self) -> str:
        """See `Step`."""
        if self.dtype:
            return f"{self.dtype} keys and values"
        sides = [f"{bits}-bit {name}" for bits, name in ((self.k_bits, "keys"), (self.v_bits, "values")) if bits]
        return " and ".join(sides) + (f", {per_group(self.group_size)}" if self.group_size else "")

    def idle(self) -> list[Idle]:
        """See `Step`."""
        if self.dtype is None:
            return []
        why = f"the engine stores {self.dtype} with a scale of 1"
        return [Idle(("group_size", "symmetric"), ("dtype",), why, "give k_bits and v_bits in place of dtype")]


# The widths that a module of a mixture may have.
MIXED_BITS: Final = (3, 4, 5, 6, 8)


class QuantizeDynamic(Calibrated):
    """Dynamic quantization scaling: channels smoothed, scales and zero points of groups searched by the error of their
    layer's output and then fitted by their block's, weighted by the divergence's gradient, biases corrected,
    bits given to modules by the nats that each was measured to cost."""

    role = "quantizer"
    graded_by = "bits"
    runner = "workers.mitigation.dynamic_scaling.step:DynamicScaling"
    rules = "dynamic"
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

    def idle(self) -> list[Idle]:
        """See `Step`."""
        if self.tuning_steps or self.block_epochs:
            return super().idle()
        why, hint = "neither blocks are fitted nor the model is tuned", "give block_epochs or tuning_steps"
        return [Idle(("tune",), ("tuning_steps", "block_epochs"), why, hint)]

    @property
    def trained_tokens(self) -> int:
        """See `Step`."""
        return self.block_epochs * self.text_tokens + self.tuning_steps * self.calibration_window
