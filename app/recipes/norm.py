"""Normalization changed, dropped, or tuned as a repair."""

from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from app.recipes.base import Calibrated, Step
from app.recipes.strength import FALLING, UNKNOWN, around


class NormScale(Step):
    """Multiplies norm weights by `factor` and adds `shift`."""

    role = "adjuster"
    runner = "workers.surgery.norm:ScaleStep"
    type: Literal["norm.scale"]
    factor: Annotated[float, Field(ge=-100, le=100), around(1.0, factor=True)] = Field(
        default=1.0, description="Factor on the norm weights."
    )
    shift: Annotated[float, Field(ge=-100, le=100), around(0.0)] = Field(
        default=0.0, description="Added to the norm weights after the factor."
    )

    @model_validator(mode="after")
    def _some_change(self) -> "NormScale":
        if self.factor == 1.0 and self.shift == 0.0:
            raise ValueError("give a factor that is not 1 or a shift that is not 0")
        return self

    def words(self) -> str:
        """See `Step`."""
        shift = f" {'+' if self.shift > 0 else '−'} {abs(self.shift):g}" if self.shift else ""
        return f"norms × {self.factor:g}{shift}"


class NormEpsilon(Step):
    """Sets the epsilon of every norm."""

    role = "adjuster"
    runner = "workers.surgery.norm:EpsilonStep"
    type: Literal["norm.epsilon"]
    # 1e-6: the configuration classes', where config.json says nothing.
    epsilon: Annotated[float, Field(gt=0, le=10), around(1e-6, configured="rms_norm_eps", factor=True)] = Field(
        description="The new `rms_norm_eps` of all norms."
    )

    def words(self) -> str:
        """See `Step`."""
        return f"norm epsilon {self.epsilon:g}"


class NormDrop(Step):
    """Sets every norm weight to 1."""

    role = "adjuster"
    runner = "workers.surgery.norm:DropStep"
    type: Literal["norm.drop"]

    def words(self) -> str:
        """See `Step`."""
        return "norms without weights"


# Positions of one step of tweaking, at most: at least one window.
TWEAK_TOKENS: Final = 2048


class NormTweak(Calibrated):
    """Norm tweaking: trains norm weights so that each block's output has the reference's mean and variance."""

    role = "repair"
    runner = "workers.surgery.norm_tweak:TweakStep"
    type: Literal["norm.tweak"]
    steps: Annotated[int, Field(ge=1, le=10000), FALLING] = Field(default=20, description="Training steps per block.")
    learning_rate: Annotated[float, Field(gt=0, le=1), UNKNOWN] = Field(
        default=1e-3, description="Learning rate of this training."
    )

    def words(self) -> str:
        """See `Step`."""
        return f"norm tweaking, {self.steps} steps per block"

    @property
    def trained_tokens(self) -> int:
        """See `Step`."""
        windows = min(self.calibration_windows, max(1, TWEAK_TOKENS // self.calibration_window))
        return self.steps * windows * self.calibration_window
