"""Forms that a robustness curve might have instead of the published one. All are fitted by least squares on ln y.

The bounds that a request gives belong to the published form; these forms have none, so that a rival never loses for
having been held back. Two have no transition. With the line in y itself (`line`) they say what "nothing happens in this
range" looks like: a power law is straight against ln s, an exponential against s.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from workers.analysis.threshold.curve import Array, Curve
from workers.analysis.threshold.forms import FormFit
from workers.analysis.threshold.knee import KneeSearch

_MIDPOINTS = 41
_RATES = 31


@dataclass(frozen=True)
class PowerLaw:
    """ln y = ln a + b ln s."""

    name: str = "power_law"
    coefficients: int = 2
    transition: bool = False

    def fit(self, curve: Curve) -> FormFit:
        """Ordinary least squares."""
        level, slope, sse = _line(np.log(curve.s_N), curve.log_N)
        return FormFit({"log_a": level, "b": slope}, sse, lambda s_N: level + slope * np.log(s_N))


@dataclass(frozen=True)
class Exponential:
    """ln y = ln a + k s."""

    name: str = "exponential"
    coefficients: int = 2
    transition: bool = False

    def fit(self, curve: Curve) -> FormFit:
        """Ordinary least squares."""
        level, slope, sse = _line(curve.s_N, curve.log_N)
        return FormFit({"log_a": level, "k": slope}, sse, lambda s_N: level + slope * s_N)


@dataclass(frozen=True)
class BrokenLine:
    """ln y = c + m s, with the slope changed by d beyond the knee."""

    name: str = "broken_line"
    coefficients: int = 4
    transition: bool = True

    def fit(self, curve: Curve) -> FormFit:
        """The global optimum over the knee within the measured range."""
        open_K = np.full(3, np.inf)
        found = KneeSearch(_broken_line, -open_K, open_K, float(curve.s_N[0]), float(curve.s_N[-1])).fit(curve)
        level, slope, change = (float(value) for value in found.coefficient_K)
        params = {"level": level, "slope_below": slope, "slope_above": slope + change, "knee": found.knee}
        knee_G, coefficient_K = np.array([found.knee]), found.coefficient_K
        return FormFit(params, found.sse, lambda s_N: np.asarray(_broken_line(s_N, knee_G)[0] @ coefficient_K))


@dataclass(frozen=True)
class Logistic:
    """ln y = floor + rise / (1 + exp(-rate (s - midpoint))).

    The midpoint is in the measured range or at most its length beyond, the rate between half and 400 times the
    inverse of that length.
    """

    name: str = "logistic"
    coefficients: int = 4
    transition: bool = True

    def fit(self, curve: Curve) -> FormFit:
        """A grid over midpoint and rate, given which the form is linear, and a local fit from the best three."""
        low, high = _logistic_box(curve)
        midpoint_G, rate_G = (
            grid.ravel()
            for grid in np.meshgrid(
                np.linspace(low[0], high[0], _MIDPOINTS), np.linspace(low[1], high[1], _RATES), indexing="ij"
            )
        )
        _, _, sse_G = _logistic_lines(curve, midpoint_G, np.exp(rate_G))
        starts = np.argsort(sse_G, kind="stable")[:3]
        fits = [self._local(curve, midpoint_G[start], rate_G[start]) for start in starts]
        return min(fits, key=lambda fit: fit.log_sse)

    @staticmethod
    def _local(curve: Curve, midpoint: float, log_rate: float) -> FormFit:
        def residual(place: Array) -> Array:
            level, rise, _ = _logistic_lines(curve, place[:1], np.exp(place[1:]))
            return np.asarray(
                curve.log_N - level[0] - rise[0] * special.expit(np.exp(place[1]) * (curve.s_N - place[0]))
            )

        low, high = _logistic_box(curve)
        start = np.clip([midpoint, log_rate], low, high)
        place = optimize.least_squares(residual, start, bounds=(low, high), x_scale=high - low, xtol=1e-10).x
        level, rise, sse = _logistic_lines(curve, place[:1], np.exp(place[1:]))
        floor, height, rate, middle = float(level[0]), float(rise[0]), float(np.exp(place[1])), float(place[0])
        return FormFit(
            {"floor": floor, "rise": height, "rate": rate, "midpoint": middle},
            float(sse[0]),
            lambda s_N: floor + height * special.expit(rate * (s_N - middle)),
        )


def _line(x_N: Array, y_N: Array) -> tuple[float, float, float]:
    """Level, slope and sum of squared residuals of the least-squares line."""
    x_mean, y_mean = x_N.mean(), y_N.mean()
    slope = ((x_N - x_mean) * (y_N - y_mean)).sum() / ((x_N - x_mean) ** 2).sum()
    level = y_mean - slope * x_mean
    return float(level), float(slope), float(((y_N - level - slope * x_N) ** 2).sum())


def _broken_line(s_N: Array, knee_G: Array) -> Array:
    """Columns 1, s, (s - knee)₊: (G, N, 3)."""
    beyond_GN = np.maximum(s_N - knee_G[:, None], 0.0)
    return np.stack([np.ones_like(beyond_GN), np.broadcast_to(s_N, beyond_GN.shape), beyond_GN], axis=-1)


def _logistic_box(curve: Curve) -> tuple[Array, Array]:
    """Bounds of (midpoint, ln rate)."""
    first, last = curve.s_N[0], curve.s_N[-1]
    span = last - first
    return np.array([first, np.log(0.5 / span)]), np.array([last + span, np.log(400 / span)])


def _logistic_lines(curve: Curve, midpoint_G: Array, rate_G: Array) -> tuple[Array, Array, Array]:
    """Best floor and rise for given midpoints and rates, and the sums of squared residuals."""
    shape_GN = special.expit(rate_G[:, None] * (curve.s_N - midpoint_G[:, None]))
    mean_G, y_mean = shape_GN.mean(axis=1), curve.log_N.mean()
    centred_GN = shape_GN - mean_G[:, None]
    square_G = (centred_GN**2).sum(axis=1)
    rise_G = centred_GN @ (curve.log_N - y_mean) / np.where(square_G > 0, square_G, 1.0)
    sse_G = ((curve.log_N - y_mean - rise_G[:, None] * centred_GN) ** 2).sum(axis=1)
    return y_mean - rise_G * mean_G, rise_G, sse_G
