"""Longer contexts by other rotary frequencies."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from app.recipes.base import Step
from app.recipes.strength import RISING

Factor = Annotated[float, Field(gt=1, le=1024), RISING]


class Longer(Step):
    """A longer context."""

    role = "context"

    factor: Factor = Field(description="Multiplies `max_position_embeddings`.")

    def words(self) -> str:
        """See `Step`."""
        return f"context × {self.factor:g} ({self.title})"


class ContextLinear(Longer):
    """Position interpolation: divides rotary positions by `factor`."""

    runner = "workers.surgery.context:Scaled"
    title = "linear"
    type: Literal["context.linear"]


class ContextNtk(Longer):
    """NTK-aware scaling: multiplies the rotary base by factor^(d/(d−2))."""

    runner = "workers.surgery.context:Scaled"
    title = "NTK"
    type: Literal["context.ntk"]


class ContextYarn(Longer):
    """YaRN: interpolates low frequencies, keeps high ones and scales attention."""

    runner = "workers.surgery.context:Scaled"
    title = "YaRN"
    type: Literal["context.yarn"]
    # The larger, the more frequencies are interpolated.
    beta_fast: Annotated[float, Field(gt=0, le=1024), RISING] = Field(
        default=32.0, description="Frequencies that turn more often than this in the old context are kept."
    )
    beta_slow: Annotated[float, Field(gt=0, le=1024), RISING] = Field(
        default=1.0,
        description="Frequencies that turn less often than this in the old context are divided by the factor.",
    )

    @model_validator(mode="after")
    def _fast_turns_more(self) -> "ContextYarn":
        if self.beta_fast < self.beta_slow:
            raise ValueError("give a beta_fast of at least beta_slow")
        return self
