"""What a publication says of a curve, held against the fit: the same form, the same points, its coefficients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from workers.analysis.threshold.bounds import Bounds
from workers.analysis.threshold.curve import Curve
from workers.analysis.threshold.published import PublishedFit, basis

# Published figures are drawn to six digits: a coefficient that misses its bound by less rests on it.
_NEAR = 1e-6
# Sums of squares are published to five.
_PRINTED = 1e-5


@dataclass(frozen=True)
class Publication:
    """Coefficients of the published form, and the sum of squared residuals of ln y that is stated with them, if any."""

    a: float
    b: float
    s0: float
    k1: float
    k2: float
    stated_log_sse: float | None = None

    def params(self) -> dict[str, float]:
        """The coefficients by name."""
        return {"a": self.a, "b": self.b, "s0": self.s0, "k1": self.k1, "k2": self.k2}

    def log_sse(self, curve: Curve) -> float:
        """The sum of squared residuals of ln y over the points of a curve; infinite or NaN if the form is."""
        coefficient_K = np.array([math.log(self.a), self.b, self.k1, self.k2])
        with np.errstate(over="ignore", invalid="ignore"):
            error_N = basis(curve.s_N, np.array([self.s0]))[0] @ coefficient_K - curve.log_N
            return float(np.square(error_N).sum())

    def outside(self, bounds: Bounds) -> list[str]:
        """The coefficients that the bounds do not allow."""
        return [
            name
            for name, value in self.params().items()
            if any(
                side is not None and sign * (value - side) > _NEAR * max(1.0, abs(side))
                for sign, side in zip((-1, 1), getattr(bounds, name), strict=True)
            )
        ]

    def against(self, curve: Curve, bounds: Bounds, fit: PublishedFit) -> dict[str, Any]:
        """Both sums of squares and their difference (the fit's minus the published: negative is better), as JSON."""
        log_sse = self.log_sse(curve)
        notes = [
            f"the published {name} is outside its bounds: the fit may not go there" for name in self.outside(bounds)
        ]
        stated = self.stated_log_sse
        if stated is not None and abs(stated - log_sse) > 2 * max(_PRINTED, _PRINTED * log_sse):
            notes.append(f"the stated log SSE, {stated:.5g}, is not that of the published coefficients on these points")
        return {
            "params": self.params(),
            "log_sse": log_sse,
            "stated_log_sse": stated,
            "difference": fit.log_sse - log_sse,
            "notes": notes,
        }
