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
    """Repeats the run of neighbouring `layers` once."""

    runner = "workers.surgery.extend:Duplicate"
    title = "repeated"
    type: Literal["extend.duplicate"]

    @model_validator(mode="after")
    def _layers_named(self) -> "ExtendDuplicate":
        if self.layers is None:
            raise ValueError("give layers: the run of neighbouring layers that is repeated")
        return self


class ExtendIdentity(Deeper):
    """Puts a copy with zero output projections behind each of `layers`; the function stays the same."""

    runner = "workers.surgery.extend:Identity"
    title = "followed by identities"
    type: Literal["extend.identity"]


class ExtendInterpolate(Deeper):
    """Puts a new layer between each of `layers` and the next one."""

    runner = "workers.surgery.extend:Interpolate"
    title = "followed by interpolations"
    type: Literal["extend.interpolate"]
    # Neither end leaves the model as it is.
    weight: Annotated[float, Field(ge=0, le=1), UNKNOWN] = Field(
        default=0.5, description="Weight of the next layer in each new layer."
    )


class ExtendWidth(Step):
    """Copies heads and MLP channels and shares their output weights; without noise the function stays the same."""

    role = "extender"
    runner = "workers.surgery.extend:Width"
    type: Literal["extend.width"]
    heads: Annotated[int, Field(ge=1, le=16), RISING] = Field(default=1, description="How many times each head occurs.")
    channels: Annotated[int, Field(ge=1, le=16), RISING] = Field(
        default=1, description="How many times each inner MLP channel occurs."
    )
    noise: Annotated[float, Field(ge=0, le=1), RISING] = Field(
        default=0.0, description="Noise on the copies, relative to the spread of their weights."
    )
    seed: Seed = Field(default=0, description="Seed of the noise.")

    def words(self) -> str:
        """See `Step`."""
        parts = [
            f"{name} × {times}" for name, times in (("heads", self.heads), ("channels", self.channels)) if times != 1
        ]
        return f"wider: {', '.join(parts)}" + (f", noise {self.noise:g}" if self.noise else "")
