"""Normalization changed, dropped, or tuned as a repair."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from app.contracts.recipe.base import Calibrated, Step


class NormScale(Step):
    """Norm weights times `factor`, plus `shift`."""

    type: Literal["norm.scale"]
    factor: Annotated[float, Field(ge=-100, le=100)] = 1.0
    shift: Annotated[float, Field(ge=-100, le=100)] = 0.0

    @model_validator(mode="after")
    def _some_change(self) -> "NormScale":
        if self.factor == 1.0 and self.shift == 0.0:
            raise ValueError("give a factor that is not 1 or a shift that is not 0")
        return self


class NormEpsilon(Step):
    """Another epsilon in every norm."""

    type: Literal["norm.epsilon"]
    epsilon: Annotated[float, Field(gt=0, le=10)]


class NormDrop(Step):
    """Norms without their learned weights: each becomes a plain root-mean-square normalization."""

    type: Literal["norm.drop"]


class NormTweak(Calibrated):
    """Norm tweaking: norm weights trained so that each block's output has the reference's mean and variance."""

    type: Literal["norm.tweak"]
    steps: Annotated[int, Field(ge=1, le=10000)] = 20
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-3
