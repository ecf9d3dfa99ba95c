"""Models made deeper, wider, with other routing or a longer context."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from app.contracts.recipe.base import Bits, Seed, Step
from app.contracts.recipe.strength import RISING, UNKNOWN, Direction, around

Factor = Annotated[float, Field(gt=1, le=1024), RISING]


class ExtendDuplicate(Step):
    """Depth by copies: the block of `layers` (a run of neighbours) stands twice, one behind the other."""

    role = "extender"
    runner = "workers.surgery.extend:Duplicate"
    type: Literal["extend.duplicate"]

    @model_validator(mode="after")
    def _layers_named(self) -> "ExtendDuplicate":
        if self.layers is None:
            raise ValueError("give layers: the run of neighbouring layers that is repeated")
        return self


class ExtendIdentity(Step):
    """Depth without effect: behind each of `layers` a copy of it whose output projections are zero."""

    role = "extender"
    runner = "workers.surgery.extend:Identity"
    type: Literal["extend.identity"]


class ExtendInterpolate(Step):
    """Depth by interpolation: behind each of `layers` a new one, between it and the next at `weight`."""

    role = "extender"
    runner = "workers.surgery.extend:Interpolate"
    type: Literal["extend.interpolate"]
    # Neither end leaves the model as it is.
    weight: Annotated[float, Field(ge=0, le=1), UNKNOWN] = 0.5


class ExtendWidth(Step):
    """Width that keeps the function: heads and MLP channels are copied, and their output weights shared among them."""

    role = "extender"
    runner = "workers.surgery.extend:Width"
    type: Literal["extend.width"]
    heads: Annotated[int, Field(ge=1, le=16), RISING] = Field(default=1, description="How many times each head stands.")
    channels: Annotated[int, Field(ge=1, le=16), RISING] = Field(
        default=1, description="The same for inner MLP channels."
    )
    noise: Annotated[float, Field(ge=0, le=1), RISING] = Field(
        default=0.0, description="Relative noise on the copies' weights, which breaks their symmetry."
    )
    seed: Seed = 0


class MoeTopk(Step):
    """Another number of experts a token."""

    role = "adjuster"
    runner = "workers.surgery.moe:TopK"
    type: Literal["moe.topk"]
    experts: Annotated[int, Field(ge=1, le=1024), around(configured="num_experts_per_tok", factor=True)]


class MoeRouter(Step):
    """A changed router: its logits at another temperature, its weights with noise, or rounded to few bits."""

    role = "adjuster"
    runner = "workers.surgery.moe:Router"
    type: Literal["moe.router"]
    temperature: Annotated[float, Field(gt=0, le=100), around(1.0, factor=True)] | None = None
    noise: Annotated[float, Field(gt=0, le=10), RISING] | None = Field(
        default=None, description="Relative to its weights."
    )
    # A router of fewer bits is still whole: nothing is removed.
    bits: Annotated[Bits, Direction("falling", left_out=16.0)] | None = None
    seed: Seed = 0

    @property
    def code_bits(self) -> float | None:
        """Of a rounded router."""
        return None if self.bits is None else float(self.bits)

    @model_validator(mode="after")
    def _one_change(self) -> "MoeRouter":
        if [self.temperature, self.noise, self.bits].count(None) != 2:
            raise ValueError("give one of temperature, noise and bits")
        return self


class ContextLinear(Step):
    """Position interpolation: rotary positions divided by `factor`."""

    role = "context"
    runner = "workers.surgery.context:Scaled"
    type: Literal["context.linear"]
    factor: Factor


class ContextNtk(Step):
    """NTK-aware scaling: the rotary base raised by factor^(d/(d−2))."""

    role = "context"
    runner = "workers.surgery.context:Scaled"
    type: Literal["context.ntk"]
    factor: Factor


class ContextYarn(Step):
    """YaRN: low frequencies interpolated, high ones kept, attention scaled."""

    role = "context"
    runner = "workers.surgery.context:Scaled"
    type: Literal["context.yarn"]
    factor: Factor
    # The larger, the more frequencies are interpolated.
    beta_fast: Annotated[float, Field(gt=0, le=1024), RISING] = 32.0
    beta_slow: Annotated[float, Field(gt=0, le=1024), RISING] = 1.0

    @model_validator(mode="after")
    def _fast_turns_more(self) -> "ContextYarn":
        if self.beta_fast < self.beta_slow:
            raise ValueError("give a beta_fast of at least beta_slow: what turns more often than beta_fast is kept")
        return self
