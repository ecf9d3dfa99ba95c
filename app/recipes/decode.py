"""The distribution that tokens are drawn from, changed as a decoder changes it."""

from typing import Annotated, Literal

from pydantic import Field

from app.recipes.base import Step
from app.recipes.strength import around


class DecodeTemperature(Step):
    """Divides the logits by `temperature`: below 1 sharper, above 1 flatter."""

    role = "adjuster"
    runner = "workers.surgery.decode:TemperatureStep"
    type: Literal["decode.temperature"]
    # At 0 all mass is on one token, and no divergence from the unmodified model is finite.
    temperature: Annotated[float, Field(ge=0.01, le=100), around(1.0, factor=True)] = Field(
        description="Divides the logits."
    )

    def words(self) -> str:
        """See `Step`."""
        return f"temperature {self.temperature:g}"
