"""Models made deeper, wider, with other routing or a longer context."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from app.contracts.recipe.base import Bits, Seed, Step, counted, layers_in_words
from app.contracts.recipe.strength import RISING, UNKNOWN, Direction, around

Factor = Annotated[float, Field(gt=1, le=1024), RISING]


class Deeper(Step):
    """More layers, whose words say which."""

    role = "extender"

    def label(self) -> str:
        """See `Step`."""
        return f"{layers_in_words(self.layers) if self.layers else 'every layer'} {self.title}"


class ExtendDuplicate(Deeper):
    """Depth by copies: the block of `layers` (a run of neighbours) stands twice, one behind the other."""

    runner = "workers.surgery.extend:Duplicate"
    title = "repeated"
    type: Literal["extend.duplicate"]

    @model_validator(mode="after")
    def _layers_named(self) -> "ExtendDuplicate":
        if self.layers is None:
            raise ValueError("give layers: the run of neighbouring layers that is repeated")
        return self


class ExtendIdentity(Deeper):
    """Depth without effect: behind each of `layers` a copy of it whose output projections are zero."""

    runner = "workers.surgery.extend:Identity"
    title = "followed by identities"
    type: Literal["extend.identity"]


class ExtendInterpolate(Deeper):
    """Depth by interpolation: behind each of `layers` a new one, between it and the next at `weight`."""

    runner = "workers.surgery.extend:Interpolate"
    title = "followed by interpolations"
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

    def words(self) -> str:
        """See `Step`."""
        parts = [
            f"{name} × {times}" for name, times in (("heads", self.heads), ("channels", self.channels)) if times != 1
        ]
        return f"wider: {', '.join(parts)}" + (f", noise {self.noise:g}" if self.noise else "")


class MoeTopk(Step):
    """Another number of experts a token."""

    role = "adjuster"
    runner = "workers.surgery.moe:TopK"
    type: Literal["moe.topk"]
    experts: Annotated[int, Field(ge=1, le=1024), around(configured="num_experts_per_tok", factor=True)]

    def words(self) -> str:
        """See `Step`."""
        return f"{counted(self.experts, 'expert')} a token"


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

    def words(self) -> str:
        """See `Step`."""
        if self.temperature is not None:
            return f"router temperature {self.temperature:g}"
        return f"router noise {self.noise:g}" if self.noise is not None else f"router {self.bits} bits"


class Longer(Step):
    """A longer context."""

    role = "context"

    factor: Factor

    def words(self) -> str:
        """See `Step`."""
        return f"context × {self.factor:g} ({self.title})"


class ContextLinear(Longer):
    """Position interpolation: rotary positions divided by `factor`."""

    runner = "workers.surgery.context:Scaled"
    title = "linear"
    type: Literal["context.linear"]


class ContextNtk(Longer):
    """NTK-aware scaling: the rotary base raised by factor^(d/(d−2))."""

    runner = "workers.surgery.context:Scaled"
    title = "NTK"
    type: Literal["context.ntk"]


class ContextYarn(Longer):
    """YaRN: low frequencies interpolated, high ones kept, attention scaled."""

    runner = "workers.surgery.context:Scaled"
    title = "YaRN"
    type: Literal["context.yarn"]
    # The larger, the more frequencies are interpolated.
    beta_fast: Annotated[float, Field(gt=0, le=1024), RISING] = 32.0
    beta_slow: Annotated[float, Field(gt=0, le=1024), RISING] = 1.0

    @model_validator(mode="after")
    def _fast_turns_more(self) -> "ContextYarn":
        if self.beta_fast < self.beta_slow:
            raise ValueError("give a beta_fast of at least beta_slow: what turns more often than beta_fast is kept")
        return self
