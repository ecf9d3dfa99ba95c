"""What a series of settings says without any form: where a limit is first passed, and how steep the curve is.

**Near-lossless point.** The successor of the Model Hemorrhage paper calls a model near-lossless up to about 1.5 more
points of WikiText-2 perplexity; its own reference is at 6.157. A difference of perplexities means nothing without its
level, so the rule is taken as the ratio it was there. That is (6.157 + 1.5)/6.157 = 1.244, an increase of ln PPL by
0.218. The drawn transition line of the same figure, PPL 7.5, is 0.197. The rule's other half, at most 5 % lost on
tasks, needs tasks and is not spoken of here.

Settings stand in the order of their strength, rising or falling in value (sparsity rises, bits fall); those that no
order distinguishes in the order of what they lose. Between two settings the value is interpolated linearly;
divergences, which grow by factors, in their logarithm.

That place is one guess among others at what no one measured. Its interval holds what the two settings around it leave
open. Damage may grow ever faster with the knob (a convex value: powers, exponentials and knees are). Then it passes the
limit no earlier than a straight line between them, and by the stronger one at the latest. So it is with the share of a
model that is removed. Of a knob that is not known to be `convex` the interval reaches over the whole gap.

The logarithm of next to nothing says nothing. So a divergence, or an end of its interval, is interpolated linearly if
it is not above a thousandth of the limit at the setting before it passes. As an excess over the noise floor it may be
negative. The interval of the place then reaches over the whole gap, too. So it does before a collapse, a setting whose
value is no number: `at` is the last before it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from workers.analysis.threshold.curve import Array, Curve
from workers.analysis.threshold.documents import DocumentLosses
from workers.analysis.threshold.interval import CONFIDENCE

NEAR_LOSSLESS = math.log((6.157 + 1.5) / 6.157)

# Of a limit: divergences below are not told from none.
RESOLVED = 1e-3


@dataclass(frozen=True)
class LimitPoint:
    """How far one may go before a value passes a limit.

    `largest`: the strongest measured setting that stays within the limit together with every weaker one; None if
    the weakest does not. `last`: which of the settings it is, for others may stand at the same value. `at`: the
    interpolated setting at which the limit is passed; None if that is outside the measured settings. `ci`: its
    95 % interval, whose None is an end that is outside them; None without the data for one.
    """

    limit: float
    largest: float | None
    at: float | None
    ci: tuple[float | None, float | None] | None = None
    last: int | None = None

    def as_json(self) -> dict[str, object]:
        """By name."""
        return {"limit": self.limit, "largest": self.largest, "at": self.at, "ci": self.ci and list(self.ci)}


def near_lossless(curve: Curve, dense: float) -> LimitPoint:
    """The near-lossless point of a perplexity curve, `dense` the unmodified model's perplexity on the same text."""
    increase_P = curve.log_N - math.log(dense)
    return _limit_point(curve.s_N, increase_P, NEAR_LOSSLESS, _place(increase_P, NEAR_LOSSLESS))


def near_lossless_of_documents(
    settings: ArrayLike,
    losses: DocumentLosses,
    dense_sums: ArrayLike,
    *,
    collapse: float | None = None,
    convex: bool = True,
    seed: int = 0,
    resamples: int = 1999,
) -> LimitPoint:
    """The near-lossless point with an interval over documents.

    `losses` are those of P settings in the order of their strength, `dense_sums` (D,) the unmodified model's on the
    same documents. `collapse` is the next stronger setting if it has no losses that are numbers: beyond any limit in
    every draw of documents. A draw counts with the earliest place and the latest that its gap allows. Raises ValueError
    where numbers do not fit.
    """
    setting_P, dense_D = np.asarray(settings, dtype=np.float64), np.asarray(dense_sums, dtype=np.float64)
    if setting_P.shape != losses.sum_PD.shape[:1] or dense_D.shape != losses.tokens_D.shape:
        raise ValueError("settings, losses and dense losses differ in number")
    increase = DocumentLosses(losses.sum_PD - dense_D, losses.tokens_D)
    value_P, draws_BP = increase.logs(), increase.logs(increase.draws(seed=seed, resamples=resamples))
    if collapse is not None:
        setting_P, value_P = np.append(setting_P, collapse), np.append(value_P, math.inf)
        draws_BP = np.column_stack([draws_BP, np.full(len(draws_BP), math.inf)])
    ends_B2 = np.array([_gap(row_P, NEAR_LOSSLESS, straight=convex) for row_P in draws_BP])
    # In the order of strength, so that falling settings keep their interval's sense.
    tail = 0.5 * (1 - CONFIDENCE)
    early = float(np.quantile(ends_B2[:, 0], tail, method="nearest"))
    late = float(np.quantile(ends_B2[:, 1], 1 - tail, method="nearest"))
    return _limit_point(setting_P, value_P, NEAR_LOSSLESS, _place(value_P, NEAR_LOSSLESS), (early, late))


def largest_mild(
    settings: ArrayLike,
    kl: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    moderate_from: float,
    *,
    convex: bool = True,
) -> LimitPoint:
    """The largest setting whose severity stays mild: whose KL stays below where `moderate` begins, with interval.

    `kl`, `low`, `high`: mean KL in nats and the limits of its 95 % interval, settings in the order of their strength.
    `largest` follows the verdict: the *upper* limit stays below. `at` is where the mean crosses; the interval is from
    the earliest place where the upper limit may cross to the latest where the lower one may. A collapse is infinite in
    all three.

    Raises ValueError for rows of different length, or a limit that is not positive.
    """
    setting_P, kl_P, low_P, high_P = (np.asarray(row, dtype=np.float64) for row in (settings, kl, low, high))
    if not setting_P.shape == kl_P.shape == low_P.shape == high_P.shape or setting_P.ndim != 1:
        raise ValueError("settings, means and limits differ in number")
    if moderate_from <= 0:
        raise ValueError("the limit is positive")
    resolved = _resolved((high_P, kl_P, low_P), moderate_from)
    early, _ = _gap(high_P, moderate_from, straight=convex and resolved[0])
    _, late = _gap(low_P, moderate_from, straight=convex)
    at = _place(kl_P, moderate_from)
    if resolved[1]:
        at = _place(np.log(np.maximum(kl_P, RESOLVED * moderate_from)), math.log(moderate_from))
    return _limit_point(setting_P, high_P, moderate_from, at, (early, late))


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


def _resolved(rows: Sequence[Array], limit: float) -> list[bool]:
    """Of each row of divergences whether those around its crossing have logarithms that say something. Rows that pass
    the limit between the same two settings are taken alike, so that the mean stays between its limits."""
    firsts = [_first(row_P, limit) for row_P in rows]
    alone = [
        0 < first < len(row_P) and row_P[first - 1] > RESOLVED * limit and math.isfinite(row_P[first])
        for row_P, first in zip(rows, firsts, strict=True)
    ]
    return [all(fine for fine, other in zip(alone, firsts, strict=True) if other == first) for first in firsts]


def _gap(value_P: Array, limit: float, *, straight: bool) -> tuple[float, float]:
    """The earliest place and the latest at which the limit may be first passed. What is between two settings is
    unknown; `straight`: no earlier than on a straight line between them."""
    first = _first(value_P, limit)
    if not 0 < first < len(value_P):
        place = _place(value_P, limit)
        return place, place
    return _place(value_P, limit) if straight else first - 1.0, float(first)


def _first(value_P: Array, limit: float) -> int:
    """The first setting past the limit; how many there are where none is."""
    past = np.flatnonzero(value_P >= limit)
    return int(past[0]) if len(past) else len(value_P)


def _place(value_P: Array, limit: float) -> float:
    """Where the limit is first passed, as a place in the series: 1.25 is a quarter of the way from the second setting.

    -inf where the first setting is past it already, inf where none is; the setting before one that is infinite.
    """
    first = _first(value_P, limit)
    if first == len(value_P):
        return math.inf
    if first == 0:
        return -math.inf
    before, after = value_P[first - 1], value_P[first]
    return first - 1 + (float((limit - before) / (after - before)) if math.isfinite(after) else 0.0)


def _at(setting_P: Array, place: float) -> float | None:
    if not math.isfinite(place):
        return None
    return float(np.interp(place, np.arange(len(setting_P)), setting_P))


def _limit_point(
    setting_P: Array, value_P: Array, limit: float, place: float, ends: tuple[float, float] | None = None
) -> LimitPoint:
    """From places in the series to settings; `value_P` stay below the limit as far as it is kept."""
    count = _first(value_P, limit)
    return LimitPoint(
        limit,
        float(setting_P[count - 1]) if count else None,
        _at(setting_P, place),
        None if ends is None else (_at(setting_P, ends[0]), _at(setting_P, ends[1])),
        count - 1 if count else None,
    )
