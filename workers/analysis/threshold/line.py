"""A line in y itself, y = c + m s, positive over the measured range, fitted to ln y.

It is straight on paper without logarithms. Its logarithm bends, and a curve that is nothing but a line must not be
taken for a broken one. Written as ln y = const + ln((1 - t) + t e^r), it has one coefficient that is not linear: r =
ln(y(last)/y(first)). Here t runs from 0 to 1 over the range.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import optimize, special

from workers.analysis.threshold.curve import Array, Curve
from workers.analysis.threshold.forms import FormFit

NAME: Final = "line"
# The ends of a line of positive values that differ by more leave one point above the rest.
_MOST_RISE: Final = 40.0
_RISES: Final = 161
_STEPS: Final = 12
_FARTHEST: Final = 1.0
# Of the least value of a curve: what a line that is no longer positive at a point left out is taken for there.
_LEAST: Final = 1e-12


class Line:
    """The family over the points s (N) of one curve."""

    coefficients: Final = 2

    def __init__(self, s_N: Array) -> None:
        along_N = (s_N - s_N[0]) / (s_N[-1] - s_N[0])
        with np.errstate(divide="ignore"):  # -inf at the ends, where the other one's share is all
            self._first_N, self._last_N = np.log1p(-along_N), np.log(along_N)

    def shape(self, rise_B: Array) -> Array:
        """ln y (B, N) at these rises, up to a constant."""
        return np.asarray(np.logaddexp(self._first_N, self._last_N + rise_B[:, None]))

    def slope(self, rise_B: Array) -> Array:
        """Derivative (B, N) of `shape` by the rise: the share of the line's value that grows with it."""
        with np.errstate(invalid="ignore"):
            return np.asarray(special.expit(self._last_N + rise_B[:, None] - self._first_N))

    def fit(self, curve: Curve) -> tuple[float, float]:
        """(rise, sum of squared residuals of ln y) of the best line."""

        def sse(rise: float) -> float:
            residual_N = curve.log_N - self.shape(np.asarray([rise]))[0]
            return float(((residual_N - residual_N.mean()) ** 2).sum())

        rise_G = np.linspace(-_MOST_RISE, _MOST_RISE, _RISES)
        residual_GN = curve.log_N - self.shape(rise_G)
        residual_GN -= residual_GN.mean(axis=1, keepdims=True)
        best = float(rise_G[int(np.argmin((residual_GN**2).sum(axis=1)))])
        step = float(rise_G[1] - rise_G[0])
        found = optimize.minimize_scalar(
            sse, bounds=(best - step, best + step), method="bounded", options={"xatol": 1e-9}
        )
        return (float(found.x), float(found.fun)) if found.fun <= sse(best) else (best, sse(best))

    def residual(self, curve: Curve) -> Array:
        """ln y minus that of the best line."""
        residual_N = curve.log_N - self.shape(np.asarray([self.fit(curve)[0]]))[0]
        return np.asarray(residual_N - residual_N.mean())

    def refitted(self, log_BN: Array, rise: float) -> Array:
        """Sums of squared residuals (B) of the best line of each of many curves near the line of this rise, by
        Gauss-Newton steps from there."""
        centred_BN = log_BN - log_BN.mean(axis=1, keepdims=True)
        rise_B = np.full(len(log_BN), rise)
        best_B = np.full(len(log_BN), np.inf)
        for _ in range(_STEPS):
            shape_BN, slope_BN = self.shape(rise_B), self.slope(rise_B)
            residual_BN = centred_BN - shape_BN + shape_BN.mean(axis=1, keepdims=True)
            slope_BN -= slope_BN.mean(axis=1, keepdims=True)
            best_B = np.minimum(best_B, (residual_BN**2).sum(axis=1))
            step_B = (residual_BN * slope_BN).sum(axis=1) / np.maximum((slope_BN**2).sum(axis=1), 1e-300)
            rise_B = np.clip(rise_B + np.clip(step_B, -_FARTHEST, _FARTHEST), -_MOST_RISE, _MOST_RISE)
        return best_B


@dataclass(frozen=True)
class LineForm:
    """y = level + slope s, as one form among others."""

    name: str = NAME
    coefficients: int = Line.coefficients
    transition: bool = False

    def fit(self, curve: Curve) -> FormFit:
        """Least squares on ln y, as of all forms."""
        line = Line(curve.s_N)
        rise, sse = line.fit(curve)
        log_first = float((curve.log_N - line.shape(np.asarray([rise]))[0]).mean())
        first, last = np.exp(log_first), np.exp(log_first + rise)
        start, span = float(curve.s_N[0]), float(curve.s_N[-1] - curve.s_N[0])
        slope = float((last - first) / span)
        least = _LEAST * min(first, last)
        return FormFit(
            {"level": float(first) - slope * start, "slope": slope},
            sse,
            lambda s_N: np.log(np.maximum(first + slope * (s_N - start), least)),
        )
