"""The published form on top of what the unmodified model already has: y(s) = dense + a sᵇ …, fitted to ln y.

The published form alone goes to 0 with s, where a perplexity goes to that of the unmodified model, and its residuals
below the knee show it. With the dense value as additive offset it need not. Where that value is not given it is a
coefficient of the fit, between 0 and the smallest measured value; at 0 it is the published form itself.

No longer linear given the knee: each start is a fit of ln(y - dense) with weights (y - dense)/y, which is the same
problem to first order, and is followed to a local optimum of the true one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from workers.diagnosis.threshold import published
from workers.diagnosis.threshold.bounds import Bounds
from workers.diagnosis.threshold.curve import Array, Curve
from workers.diagnosis.threshold.forms import FormFit
from workers.diagnosis.threshold.knee import KneeSearch

_SHARES = (0.0, 0.5, 0.8, 0.95, 0.999)
_MOST_SHARE = 1 - 1e-9
# A point at or below the offset still needs a logarithm for a start.
_LEAST_REST = 1e-3
_LARGEST_LOG = 600.0
_NAMES = ("log_a", "b", "k1", "k2", "s0", "dense")


@dataclass(frozen=True)
class PublishedWithOffset:
    """The published form under the same bounds, over `dense`, or over an offset that is fitted where it is None.

    `knee_range` is where s0 is looked for.
    """

    bounds: Bounds
    knee_range: tuple[float, float]
    dense: float | None = None
    name: str = "power_law_then_exponential_over_dense"
    transition: bool = True

    @property
    def coefficients(self) -> int:
        """Those of the published form that are not fixed, and the offset where it is fitted."""
        return published.free_coefficients(self.bounds) + (self.dense is None)

    def fit(self, curve: Curve) -> FormFit:
        """The best local optimum from a start for each of several offsets."""
        unit = float(curve.log_N.min())
        offsets = _SHARES if self.dense is None else (_relative(self.dense, unit),)
        fits = [self._local(curve, unit, self._start(curve, unit, offset)) for offset in offsets]
        return min(fits, key=lambda fit: fit.log_sse)

    def refit(self, curve: Curve, near: FormFit) -> FormFit:
        """A local fit."""
        unit = float(curve.log_N.min())
        start = np.array([near.params[name] for name in _NAMES])
        start[0] -= unit
        start[5] = _relative(start[5], unit)
        return self._local(curve, unit, start, steps=40)

    def _start(self, curve: Curve, unit: float, offset: float) -> Array:
        log_N = curve.log_N - unit
        share_N = np.maximum(1 - offset * np.exp(-log_N), _LEAST_REST)
        lower, upper = self._box(unit)
        low, high = self.knee_range
        weighted = KneeSearch(
            lambda s_N, knee_G: published.basis(s_N, knee_G) * share_N[:, None], lower[:4], upper[:4], low, high
        )
        found = weighted.fit(curve.with_logs((log_N + np.log(share_N)) * share_N))
        return np.array([*found.coefficient_K, found.knee, offset])

    def _local(self, curve: Curve, unit: float, start: Array, *, steps: int = 200) -> FormFit:
        """The local optimum from `start`; values are in units of e^unit, so that none is too large for a product."""
        log_N = curve.log_N - unit
        lower, upper = self._box(unit)
        free = lower < upper
        place = np.clip(start, lower, upper)

        def at(moved: Array) -> Array:
            full = place.copy()
            full[free] = moved
            return full

        def residual(moved: Array) -> Array:
            return _predict(curve.s_N, at(moved)) - log_N

        def jacobian(moved: Array) -> Array:
            return np.asarray(_jacobian(curve.s_N, at(moved))[:, free])

        found = place
        if free.any():
            solved = optimize.least_squares(
                residual,
                place[free],
                jac=jacobian,
                bounds=(lower[free], upper[free]),
                x_scale="jac",
                max_nfev=steps,
            )
            found = at(solved.x)
        # The solver starts a little inside the bounds and may end above where it began.
        found_sse, place_sse = (float(((_predict(curve.s_N, at_) - log_N) ** 2).sum()) for at_ in (found, place))
        chosen = found if found_sse <= place_sse else place
        params = {name: float(value) for name, value in zip(_NAMES, chosen, strict=True)}
        params["log_a"] += unit
        params["dense"] = float(chosen[5] * math.exp(unit)) if self.dense is None else self.dense
        return FormFit(
            params, min(found_sse, place_sse), lambda s_N: _predict(np.asarray(s_N, dtype=np.float64), chosen) + unit
        )

    def _box(self, unit: float) -> tuple[Array, Array]:
        lower_K, upper_K = self.bounds.box()
        shift_K = np.array([unit, 0.0, 0.0, 0.0])
        offset = (0.0, _MOST_SHARE) if self.dense is None else (_relative(self.dense, unit),) * 2
        low, high = self.knee_range
        return np.array([*(lower_K - shift_K), low, offset[0]]), np.array([*(upper_K - shift_K), high, offset[1]])


def _relative(value: float, unit: float) -> float:
    """`value` in units of e^unit."""
    return value * math.exp(-unit)


def _grown(s_N: Array, place: Array) -> Array:
    """The published form's part, not its logarithm."""
    log_N = published.basis(s_N, place[4:5])[0] @ place[:4]
    return np.asarray(np.exp(np.clip(log_N, -_LARGEST_LOG, _LARGEST_LOG)))


def _predict(s_N: Array, place: Array) -> Array:
    return np.asarray(np.log(np.maximum(place[5] + _grown(s_N, place), 1e-300)))


def _jacobian(s_N: Array, place: Array) -> Array:
    grown_N = _grown(s_N, place)
    total_N = np.maximum(place[5] + grown_N, 1e-300)
    inner_NK = published.tangents(s_N, place[1], place[2], place[3], place[4])
    return np.column_stack([inner_NK * (grown_N / total_N)[:, None], 1 / total_N])
