"""A temperature that depends on how sure the model is: sharp and flat rows need not be wrong in the same direction.

The feature of a row is x = ln of its largest probability, from the logits as they come in, at most 0. The logits are
multiplied with exp(s(x)), s piecewise linear between knots x_1 < … < x_K and constant beyond them: a spline of first
order with K numbers. One softmax normalization a row is its whole cost. Like temperature it moves no token past
another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

import torch

from workers.calibrators.base import Base, require, shape
from workers.calibrators.protocol import Parameter, RowContext

# Rows that are widened to float32 at a time: memory stays flat under a large batch.
_ROWS = 64


class ConfidenceTemperature(Base):
    """`knots_K` rising values of x, `log_scale_K` the values of s there, both float32."""

    KIND: ClassVar[str] = "confidence"

    def __init__(self, knots_K: torch.Tensor, log_scale_K: torch.Tensor) -> None:
        require(
            knots_K.ndim == 1 and knots_K.shape == log_scale_K.shape and len(knots_K) >= 1,
            f"knots of shape {shape(knots_K)} and scales of shape {shape(log_scale_K)}, expected one of each",
        )
        require(bool((knots_K.diff() > 0).all()), "knots must rise")
        self.knots_K = knots_K
        self.log_scale_K = log_scale_K

    def apply_logits(self, logits_TV: torch.Tensor, context: RowContext) -> torch.Tensor:
        """logits · exp(s(x))."""
        del context
        parts = []
        for part_TV in torch.split(logits_TV, _ROWS):
            wide_TV = part_TV.to(torch.promote_types(part_TV.dtype, torch.float32))
            parts.append((wide_TV * self._scale(wide_TV)).to(part_TV.dtype))
        return torch.cat(parts) if parts else logits_TV

    def apply_logits_(self, logits_TV: torch.Tensor, context: RowContext) -> torch.Tensor:
        """logits · exp(s(x)), where they stand if they are float32."""
        if logits_TV.dtype != torch.float32:
            return self.apply_logits(logits_TV, context)
        for part_TV in torch.split(logits_TV, _ROWS):
            part_TV.mul_(self._scale(part_TV))
        return logits_TV

    def _scale(self, wide_TV: torch.Tensor) -> torch.Tensor:
        """exp(s(x)) of each row, [T, 1]."""
        return interpolate(log_top_probability(wide_TV), self.knots_K, self.log_scale_K).exp()[:, None]

    def describe(self) -> Mapping[str, Parameter]:
        """Number of knots, and the temperatures at both ends."""
        ends = (-self.log_scale_K).exp()
        return {
            "feature": "log_top_probability",
            "knots": len(self.knots_K),
            "temperature_least_sure": float(ends[0]),
            "temperature_most_sure": float(ends[-1]),
        }

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """Knots and scales."""
        return {"knots_K": self.knots_K, "log_scale_K": self.log_scale_K}

    @classmethod
    def restore(cls, parameters: Mapping[str, Parameter], tensors: Mapping[str, torch.Tensor]) -> Self:
        """From its table."""
        require(parameters.get("feature") == "log_top_probability", "unknown feature of a confidence temperature")
        return cls(tensors["knots_K"], tensors["log_scale_K"])

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> Self:
        """The same on another device; always float32."""
        del dtype
        return type(self)(self.knots_K.to(device), self.log_scale_K.to(device))


def log_top_probability(logits_TV: torch.Tensor) -> torch.Tensor:
    """ln of each row's largest probability."""
    return logits_TV.amax(dim=1) - logits_TV.logsumexp(dim=1)


def interpolate(x_T: torch.Tensor, knots_K: torch.Tensor, values_K: torch.Tensor) -> torch.Tensor:
    """Piecewise linear, constant beyond the ends; differentiable in `values_K`."""
    knots_K = knots_K.to(x_T.dtype)
    values_K = values_K.to(x_T.dtype)
    if len(knots_K) == 1:
        return values_K.expand(len(x_T))
    right_T = torch.searchsorted(knots_K, x_T).clamp(1, len(knots_K) - 1)
    low_T, high_T = knots_K[right_T - 1], knots_K[right_T]
    share_T = ((x_T - low_T) / (high_T - low_T)).clamp(0, 1)
    return values_K[right_T - 1] * (1 - share_T) + values_K[right_T] * share_T
