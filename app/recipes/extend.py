"""Models made deeper or wider."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from app.recipes.base import Seed, Step, layers_in_words
from app.recipes.strength import RISING, UNKNOWN


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
