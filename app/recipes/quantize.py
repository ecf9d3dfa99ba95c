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
    """Rounds each weight to the nearest value of an even grid.

    Asymmetric: scale (max − min) / (2^bits − 1), rounded zero point. Symmetric: max|w| / (2^(bits−1) − 1).
    """

    streamed = True
    runner = "workers.surgery.steps:RtnRunner"
    variants: ClassVar[Mapping[str, str]] = {"packed": "workers.surgery.quantize_rtn:RtnPacked"}
    title = "RTN"
    type: Literal["quantize.rtn"]


class QuantizeGptq(Calibrated, Grouped):
    """GPTQ: rounds column by column; later columns compensate the error of earlier ones."""

    runner = "workers.surgery.quantize_gptq:Gptq"
    squares = True
    weighed = 30.0  # a column at a time, with what its error adds to those behind
    products = 1.0
    factors = 1.5
    title = "GPTQ"
    type: Literal["quantize.gptq"]
    damping: Annotated[float, Field(gt=0, le=1), UNKNOWN] = Field(
        default=0.01, description="Share of the mean diagonal that is added to the second moment of the inputs."
    )
    act_order: bool = Field(
        default=True, description="Columns of the largest activations first; groups keep their place."
    )


class QuantizeAwq(Calibrated, Grouped):
    """AWQ: scales input channels by their activations before rounding; searches the exponent per layer."""

    runner = "workers.surgery.quantize_awq:Awq"
    folds = True
    weighed = 21.0  # once per exponent, and once to round
    products = 20.0
    title = "AWQ"
    type: Literal["quantize.awq"]


class QuantizeSmoothquant(Calibrated):
    """SmoothQuant: moves outliers of activations into the weights, then rounds weights and activations."""

    role = "quantizer"
    replaced_by = "quantize.dynamic"
    runner = "workers.surgery.quantize_smoothquant:Smoothquant"
    folds = True
    weighed = 2.0
    type: Literal["quantize.smoothquant"]
    bits: Bits = Field(default=8, description="Bits per weight.")
    activation_bits: Annotated[Literal[4, 8], BITS] = Field(default=8, description="Bits per layer input.")
    dynamic: bool = Field(
        default=True,
        description="True: activation scales per token at run time; false: fixed by the calibration data.",
    )
    strength: Annotated[float, Field(ge=0, le=1), UNKNOWN] = Field(
        default=0.5, description="Exponent α: how much of the activations' range moves into the weights."
    )
    form: Form = Field(default="simulated", description="`simulated` or `packed`.")

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
    """Rounds weights, and activations if asked, to 8-bit floats (e4m3)."""

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
    activations: Literal["none", "dynamic", "static"] = Field(
        default="none",
        description="Layer inputs: unchanged, one scale per token (`dynamic`), or one scale from the calibration "
        "data (`static`).",
    )
    form: Form = Field(default="simulated", description="`simulated` or `packed`.")

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
    """NF4: rounds each weight to one of 16 quantiles of the normal distribution, scaled per group."""

    role = "quantizer"
    replaced_by = "quantize.dynamic"
    streamed = True
    runner = "workers.surgery.quantize_nf4:Nf4Runner"
    type: Literal["quantize.nf4"]
    group_size: GroupSize | None = Field(
        default=64,
        description="Weights along the input dimension that share a scale; null: one scale per output channel.",
    )

    @property
    def code_bits(self) -> float:
        """The one width."""
        return 4.0

    def words(self) -> str:
        """See `Step`."""
        return f"NF4, {per_group(self.group_size)}"


class QuantizeActivations(Calibrated):
    """Rounds the inputs of linear layers to an even grid at run time; weights stay."""

    role = "quantizer"
    runner = "workers.surgery.quantize_activations:ActivationsStep"
    reads_by = ("dynamic", "with dynamic false alone")
    rules = "runtime"
    type: Literal["quantize.activations"]
    bits: Annotated[Literal[4, 8], BITS] = Field(description="Bits per layer input.")
    dynamic: bool = Field(
        default=True,
        description="One grid per token at run time; false: one grid per layer input, from the calibration data.",
    )
    symmetric: bool = Field(default=True, description="False: with a zero point.")

    @property
    def reads_text(self) -> bool:
        """Fixed scales come from the text."""
        return not self.dynamic

    def words(self) -> str:
        """See `Step`."""
        when = "a grid a token" if self.dynamic else "fixed grids"
        return f"{self.bits}-bit activations, {when}, {'symmetric' if self.symmetric else 'asymmetric'}"


class QuantizeKvCache(Step):
    """Stores keys and values with fewer bits: in a dtype of vLLM, or simulated."""

    role = "quantizer"
    runner = "workers.surgery.quantize_kv_cache:KvCacheStep"
    rules = "runtime"
    type: Literal["quantize.kv_cache"]
    dtype: Literal["fp8", "fp8_e4m3", "fp8_e5m2"] | None = Field(
        default=None,
        description="vLLM's own cache in this dtype, for all layers; give this, or `k_bits` and `v_bits`.",
    )
    k_bits: Bits | None = Field(default=None, description="Simulated bits of keys; null: keys stay.")
    v_bits: Bits | None = Field(default=None, description="Simulated bits of values; null: values stay.")
    group_size: GroupSize | None = Field(
        default=None, description="Values of a head that share a grid; null: one grid per token and head."
    )
    symmetric: bool = Field(default=False, description="True: no zero points.")

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
    """Dynamic scaling: searches scales by the error of each layer's output, weighted by the divergence's gradient, then
    trains each block."""

    role = "quantizer"
    graded_by = "bits"
    squares = True
    taped = True
    trained_in = "float32"
    runner = "workers.mitigation.dynamic_scaling.step:DynamicScaling"
    rules = "dynamic"
    type: Literal["quantize.dynamic"]
    bits: Annotated[float, Field(ge=2, le=8), BITS] = Field(
        description="Bits per weight; with `mixed` the mean, for example 4.5."
    )
    group_size: GroupSize | None = Field(
        default=64,
        description="Weights along the input dimension that share a scale; null: one scale per output channel.",
    )
    symmetric: bool = Field(default=False, description="True: no zero points.")
    activation_bits: Annotated[Literal[4, 8], BITS] | None = Field(
        default=None, description="Bits per layer input, one scale per token; null: inputs stay."
    )
    mixed: bool = Field(
        default=False,
        description="Gives each module 3, 4, 5, 6 or 8 bits.",
    )
    block_epochs: Annotated[int, Field(ge=0, le=1000), FALLING] = Field(
        default=3, description="Training epochs per block, towards the source's block; 0: none."
    )
    form: Form = Field(default="simulated", description="`simulated` or `packed`.")

    @property
    def code_bits(self) -> float:
        """Of a mixture, those of the module with the fewest."""
        return min(self.bits, MIXED_BITS[0]) if self.mixed else self.bits

    @model_validator(mode="after")
    def _whole_bits(self) -> "QuantizeDynamic":
        if not self.mixed and self.bits != int(self.bits):
            raise ValueError("bits must be a whole number, unless `mixed` is true")
        return self

    def words(self) -> str:
        """See `Step`."""
        widths = f"{self.bits:g}-bit" + (" on average, mixed," if self.mixed else "")
        inputs = f" A{self.activation_bits}" if self.activation_bits else ""
        fitted = f", blocks fitted over {counted(self.block_epochs, 'epoch')}" if self.block_epochs else ""
        packed = ", packed" if self.form == "packed" else ""
        return f"{widths} dynamic scaling{inputs}, {per_group(self.group_size)}{fitted}{packed}"

    @property
    def trained_tokens(self) -> int:
        """See `Step`."""
        return self.block_epochs * self.text_tokens
