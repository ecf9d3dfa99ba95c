"""What a series of settings says without any form: where a limit is first passed, and how steep the curve is.

**Near-lossless point.** The successor of the Model Hemorrhage paper calls a model near-lossless up to about 1.5 more
points of WikiText-2 perplexity; its own reference stands at 6.157. A difference of perplexities means nothing without
its level, so the rule is taken as the ratio it was there, (6.157 + 1.5)/6.157 = 1.244: an increase of ln PPL by
0.218. The drawn transition line of the same figure, PPL 7.5, is 0.197. The rule's other half, at most 5 % lost on
tasks, needs tasks and is not spoken of here.

Settings stand in the order of their strength, rising or falling in value (sparsity rises, bits fall). Between two
settings the value is interpolated linearly; divergences, which grow by factors, in their logarithm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from workers.diagnosis.threshold.curve import Array, Curve
from workers.diagnosis.threshold.documents import DocumentLosses
from workers.diagnosis.threshold.interval import CONFIDENCE

NEAR_LOSSLESS = math.log((6.157 + 1.5) / 6.157)

_TINY = np.finfo(np.float64).tiny


@dataclass(frozen=True)
class LimitPoint:
    """How far one may go before a value passes a limit.

    `largest`: the strongest measured setting that stays within the limit together with every weaker one; None where
    the weakest does not. `at`: the interpolated setting at which the limit is passed; None where that lies outside
    the measured settings. `ci`: its 95 % interval, whose None is an end that lies outside them; None without the data
    for one.
    """

    limit: float
    largest: float | None
    at: float | None
    ci: tuple[float | None, float | None] | None = None

    def as_json(self) -> dict[str, object]:
        """By name."""
        return {"limit": self.limit, "largest": self.largest, "at": self.at, "ci": self.ci and list(self.ci)}


def near_lossless(curve: Curve, dense: float) -> LimitPoint:
    """The near-lossless point of a perplexity curve, `dense` the unmodified model's perplexity on the same text."""
    increase_P = curve.log_N - math.log(dense)
    largest, at = _largest(curve.s_N, increase_P, NEAR_LOSSLESS), _crossing(curve.s_N, increase_P, NEAR_LOSSLESS)
    return LimitPoint(NEAR_LOSSLESS, largest, at)


def near_lossless_of_documents(
    settings: ArrayLike, losses: DocumentLosses, dense_sums: ArrayLike, *, seed: int = 0, resamples: int = 1999
) -> LimitPoint:
    """The near-lossless point with an interval over documents.

    `losses` are those of P settings in the order of their strength, `dense_sums` (D,) the unmodified model's on the
    same documents. Raises ValueError where numbers do not fit.
    """
    setting_P, dense_D = np.asarray(settings, dtype=np.float64), np.asarray(dense_sums, dtype=np.float64)
    if setting_P.shape != losses.sum_PD.shape[:1] or dense_D.shape != losses.tokens_D.shape:
        raise ValueError("settings, losses and dense losses differ in number")
    increase = DocumentLosses(losses.sum_PD - dense_D, losses.tokens_D)
    draws_BP = increase.logs(increase.draws(seed=seed, resamples=resamples))
    place_B = np.array([_place(row_P, NEAR_LOSSLESS) for row_P in draws_BP])
    # In the order of strength, so that falling settings keep their interval's sense.
    tail = 0.5 * (1 - CONFIDENCE)
    ends = np.quantile(place_B, [tail, 1 - tail], method="nearest")
    value_P = increase.logs()
    return LimitPoint(
        NEAR_LOSSLESS,
        _largest(setting_P, value_P, NEAR_LOSSLESS),
        _crossing(setting_P, value_P, NEAR_LOSSLESS),
        (_at(setting_P, float(ends[0])), _at(setting_P, float(ends[1]))),
    )


def largest_mild(
    settings: ArrayLike, kl: ArrayLike, low: ArrayLike, high: ArrayLike, moderate_from: float
) -> LimitPoint:
    """The largest setting whose severity stays mild: whose KL stays below where `moderate` begins, with interval.

    `kl`, `low`, `high`: mean KL in nats and the limits of its 95 % interval, settings in the order of their strength.
    `largest` follows the verdict: the *upper* limit stays below. `at` is where the mean crosses; the interval is
    where the upper and the lower limit cross: the settings whose interval holds the limit.

    Raises ValueError for rows of different length, or a limit that is not positive.
    """
    setting_P, kl_P, low_P, high_P = (np.asarray(row, dtype=np.float64) for row in (settings, kl, low, high))
    if not setting_P.shape == kl_P.shape == low_P.shape == high_P.shape or setting_P.ndim != 1:
        raise ValueError("settings, means and limits differ in number")
    if moderate_from <= 0:
        raise ValueError("the limit is positive")
    log_limit = math.log(moderate_from)
    mean_P, lower_P, upper_P = (np.log(np.maximum(row, _TINY)) for row in (kl_P, low_P, high_P))
    return LimitPoint(
        moderate_from,
        _largest(setting_P, upper_P, log_limit),
        _crossing(setting_P, mean_P, log_limit),
        (_crossing(setting_P, upper_P, log_limit), _crossing(setting_P, lower_P, log_limit)),
    )


def slopes(curve: Curve, knee: float) -> tuple[float | None, float | None]:
    """Least-squares slopes of ln y, per unit of s, through the points up to the knee and beyond; None for one point."""
    found: list[float | None] = []
    for side_N in (curve.s_N <= knee, curve.s_N > knee):
        if side_N.sum() < 2:
            found.append(None)
            continue
        s_N, log_N = curve.s_N[side_N], curve.log_N[side_N]
        centred_N = s_N - s_N.mean()
        found.append(float((centred_N * log_N).sum() / (centred_N**2).sum()))
    return found[0], found[1]


def _place(value_P: Array, limit: float) -> float:
    """Where the limit is first passed, as a place in the series: 1.25 is a quarter of the way from the second setting.

    -inf where the first setting is past it already, inf where none is.
    """
    past = np.flatnonzero(value_P >= limit)
    if len(past) == 0:
        return math.inf
    first = int(past[0])
    if first == 0:
        return -math.inf
    before, after = value_P[first - 1], value_P[first]
    return first - 1 + float((limit - before) / (after - before))


def _at(setting_P: Array, place: float) -> float | None:
    if not math.isfinite(place):
        return None
    return float(np.interp(place, np.arange(len(setting_P)), setting_P))


def _crossing(setting_P: Array, value_P: Array, limit: float) -> float | None:
    return _at(setting_P, _place(value_P, limit))


def _largest(setting_P: Array, value_P: Array, limit: float) -> float | None:
    within = np.cumprod(value_P < limit)
    count = int(within.sum())
    return float(setting_P[count - 1]) if count else None
