"""A calibrator that no file of workers names: a temperature that changes with the place in the text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

import torch

from workers.calibration.fitting.data import FitData
from workers.calibration.fitting.logits import Fixed, fit_scales
from workers.calibration.fitting.objective import CheckCancelled
from workers.calibration.fitting.spec import Settings
from workers.calibration.reductions import Reductions
from workers.calibrators.base import Base, number
from workers.calibrators.protocol import Parameter, RowContext


class PositionTemperature(Base):
    """logits · exp(slope · ln(1 + position))."""

    KIND: ClassVar[str] = "position"

    def __init__(self, slope: float) -> None:
        self.slope = slope

    def apply_logits(self, logits_TV: torch.Tensor, context: RowContext) -> torch.Tensor:
        """Sums and factors are at least float32; the dtype of the logits stays."""
        scale_T1 = (self.slope * feature(context)).exp()
        return (logits_TV.to(torch.promote_types(logits_TV.dtype, torch.float32)) * scale_T1).to(logits_TV.dtype)

    def describe(self) -> Mapping[str, Parameter]:
        """The slope."""
        return {"slope": self.slope}

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """None."""
        return {}

    @classmethod
    def restore(cls, parameters: Mapping[str, Parameter], tensors: Mapping[str, torch.Tensor]) -> Self:
        """From its slope."""
        return cls(number(parameters, "slope"))

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> Self:
        """Itself."""
        return self


def feature(context: RowContext) -> torch.Tensor:
    """ln(1 + position), [T, 1]."""
    return context.position_T.float().log1p()[:, None]


def fit_position(
    fixed: Fixed, data: FitData, settings: Settings, *, check_cancelled: CheckCancelled, reductions: Reductions
) -> PositionTemperature:
    """The slope of least mean KL."""

    def features(z_CV: torch.Tensor, context: RowContext) -> torch.Tensor:
        return feature(context).to(z_CV.dtype)

    theta_K = fit_scales(
        fixed, data, features, 1, steps=settings.steps, check_cancelled=check_cancelled, reductions=reductions
    )
    return PositionTemperature(float(theta_K[0]))
