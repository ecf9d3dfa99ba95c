"""Mixtures of experts with another routing."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from app.recipes.base import Bits, Seed, Step, counted
from app.recipes.strength import RISING, Direction, around


class MoeTopk(Step):
    """Sets the number of experts per token."""

    role = "adjuster"
    runner = "workers.surgery.moe:TopK"
    type: Literal["moe.topk"]
    experts: Annotated[int, Field(ge=1, le=1024), around(configured="num_experts_per_tok", factor=True)] = Field(
        description="Experts per token, in all layers."
    )

    def words(self) -> str:
        """See `Step`."""
        return f"{counted(self.experts, 'expert')} a token"


class MoeRouter(Step):
    """Changes a router: temperature of its logits, noise on its weights, or fewer bits."""

    role = "adjuster"
    runner = "workers.surgery.moe:Router"
    type: Literal["moe.router"]
    temperature: Annotated[float, Field(gt=0, le=100), around(1.0, factor=True)] | None = Field(
        default=None, description="Divides the router's logits; give one of `temperature`, `noise` and `bits`."
    )
    noise: Annotated[float, Field(gt=0, le=10), RISING] | None = Field(
        default=None, description="Gaussian noise on the router's weights, relative to their spread."
    )
    # A router of fewer bits is still whole: nothing is removed.
    bits: Annotated[Bits, Direction("falling", left_out=16.0)] | None = Field(
        default=None, description="Bits of the router's weights, one scale per row."
    )
    seed: Seed = Field(default=0, description="Seed of the noise.")

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
