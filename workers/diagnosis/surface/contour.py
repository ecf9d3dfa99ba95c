"""The contour of a chosen loss: how far each knob goes at each setting of the other, and the line between.

Places are along an axis of settings: 0 is the knob left out, 1 its first value, 2 its second. Between neighbours a loss
in ln perplexity is taken as linear in the place, a divergence, which grows by factors, in its logarithm (`growing`), as
a sweep takes both. A row's limit is where the loss first passes the level on the way up from 0. What comes after a
crossing is not trusted, though a broken single axis can make it look better again.

That is the place that is reported, and one guess among others at what no one measured. Its interval holds what the two
settings around it leave open. Damage may grow ever faster with the knob (a convex loss: powers, exponentials and knees
are). Then it passes the level no earlier than a straight line between them, and by the stronger one at the latest.

The interval reaches over the whole gap before a collapse, and if the loss of a knob is not taken for convex in the gap
(`Convex`). It does so, too, if a divergence before the crossing is not above a thousandth of the level: its logarithm
says nothing, and it is linear there. One of exactly 0, the unmodified model's, is no such divergence: it has no error,
and the straight line from it bounds a convex loss as from any other setting.

A setting has an interval of its own, which the draws of a place do not look at. One that holds the level is neither
shown to be within it nor beyond it. So the interval of a limit is no narrower than what those of the settings leave
open, as that of a sweep is. It reaches from where their upper limits may first pass the level to where their lower ones
have.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workers.analysis.threshold.formfree import RESOLVED
from workers.distributions.intervals import CONFIDENCE, FEWEST_CLUSTERS, cluster_order

Array = NDArray[np.float64]
Point = tuple[float, float]
Line = tuple[Point, ...]
# Of a whole row, or of the gap before each of its places.
Convex = bool | NDArray[np.bool_]
# A bootstrap whose limits are beyond the measured range more often than this has no end there.
RESAMPLES: Final = 2000
_BLOCK: Final = 256


def limit(loss_P: ArrayLike, level: float, *, growing: bool = False) -> float | None:
    """Place where the loss first passes `level`, going up from place 0; None if it never does in the range.

    0 if it is beyond the level already at the start. A loss that is not finite is beyond any level.
    """
    found = limits(np.asarray(loss_P, dtype=np.float64)[None, :], level, growing=growing)[0]
    return None if np.isnan(found) else float(found)


def limits(loss_RP: Array, level: float, *, growing: bool = False) -> Array:
    """`limit` of each row, NaN if it is never passed: (R,)."""
    first_R, low_R, high_R = _crossings(loss_RP, level)
    if growing:
        in_logs_R = (low_R > RESOLVED * level) & np.isfinite(high_R)
        low_R, high_R, level_R = (
            np.log(row_R, out=row_R.copy(), where=in_logs_R) for row_R in (low_R, high_R, np.full_like(low_R, level))
        )
    else:
        level_R = np.full_like(low_R, level)
    rise_R = high_R - low_R
    usable_R = np.isfinite(rise_R) & (rise_R > 0)
    part_R = np.divide(level_R - low_R, rise_R, out=np.zeros_like(rise_R), where=usable_R)
    found_R = np.where(first_R == 0, 0.0, first_R - 1 + np.clip(part_R, 0.0, 1.0))
    return np.where(first_R == loss_RP.shape[1], np.nan, found_R)


def _crossings(loss_RP: Array, level: float) -> tuple[NDArray[np.intp], Array, Array]:
    """The first place beyond the level, how many places there are where none is; and the losses before it and there,
    the first place's own where there is none before."""
    beyond_RP = ~(loss_RP <= level)
    count, rows = loss_RP.shape[1], np.arange(len(loss_RP))
    first_R = np.where(beyond_RP.any(axis=1), beyond_RP.argmax(axis=1), count)
    return first_R, loss_RP[rows, np.maximum(first_R - 1, 0)], loss_RP[rows, np.minimum(first_R, count - 1)]


def _unresolved(loss_RP: Array, level: float, *, growing: bool, convex: Convex) -> NDArray[np.bool_]:
    """Of each row whether nothing shows where between two settings the level is passed: (R,), bool."""
    first_R, low_R, high_R = _crossings(loss_RP, level)
    unclear_R = ~np.isfinite(high_R)
    if growing:
        unclear_R |= (low_R <= RESOLVED * level) & (low_R != 0)
    count = loss_RP.shape[1]
    unclear_R |= ~np.broadcast_to(convex, count)[np.minimum(first_R, count - 1)]
    return np.asarray(unclear_R & (first_R > 0) & (first_R < count), dtype=np.bool_)


def resampled_limits(
    sums_PN: Array, counts_N: Array, level: float, *, seed: int, growing: bool = False, convex: Convex = True
) -> tuple[float, float] | None:
    """95 % percentile interval of a row's limit, clusters resampled jointly at all settings; infinite if it is
    beyond the range. None for fewer than six clusters, whose percentiles cover far too little.

    A draw counts with the earliest place and the latest that its gap allows: the one of a straight line, where the loss
    is `convex`, and the stronger setting. One whose gap is not resolved, or that of all clusters is not, counts with
    the gap's two ends.

    `sums_PN` are each place's sums of the loss over the tokens of a cluster, of which there are `counts_N`. The order
    of clusters does not matter.
    """
    clusters = counts_N.size
    if clusters < FEWEST_CLUSTERS:
        return None
    order = cluster_order(sums_PN, counts_N[None])
    sums_PN, counts_N = sums_PN[:, order], counts_N[order]
    whole_1P = (sums_PN.sum(axis=1) / counts_N.sum())[None]
    # What passes the level in the gap of the mean counts as the mean does, which stays within its interval.
    unclear = _unclear_gaps(whole_1P, level, growing=growing, convex=convex)
    rng = np.random.default_rng(seed)
    ends = []
    for start in range(0, RESAMPLES, _BLOCK):
        size = min(_BLOCK, RESAMPLES - start)
        drawn_BN = rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=size).astype(np.float64)
        loss_BP = drawn_BN @ sums_PN.T / (drawn_BN @ counts_N)[:, None]
        ends.append(_ends(loss_BP, level, unclear, growing=growing, convex=convex))
    early_B, late_B = np.sort(np.concatenate(ends, axis=1))
    tail, last = (1 - CONFIDENCE) / 2, RESAMPLES - 1
    return float(early_B[round(tail * last)]), float(late_B[round((1 - tail) * last)])


def settings_limits(
    loss_P: Array, low_P: Array, high_P: Array, level: float, *, growing: bool = False, convex: Convex = True
) -> tuple[float, float]:
    """Between which places a row's limit is by the 95 % intervals of its settings, `low_P` to `high_P` around `loss_P`.

    The first is the earliest where an upper limit may pass `level`, the second the latest where a lower one has. Each
    is infinite if its limit does not pass in the range. NaN of a setting that is not finite is beyond any level.

    No setting before the first one that is beyond for sure holds the level in its interval outside of these two.
    """
    rows_3P = np.stack([high_P, loss_P, low_P])
    unclear = _unclear_gaps(rows_3P, level, growing=growing, convex=convex)
    early_3, late_3 = _ends(rows_3P, level, unclear, growing=growing, convex=convex)
    return float(early_3[0]), float(late_3[2])


def _unclear_gaps(loss_RP: Array, level: float, *, growing: bool, convex: Convex) -> NDArray[np.intp]:
    """The gaps in which a row passes the level and is not resolved, by their stronger settings."""
    first_R, _, _ = _crossings(loss_RP, level)
    return first_R[_unresolved(loss_RP, level, growing=growing, convex=convex)]


def _ends(loss_RP: Array, level: float, unclear: NDArray[np.intp], *, growing: bool, convex: Convex) -> Array:
    """The earliest place of each row and the latest at which its gap allows the level to be passed: (2, R). Of gaps
    that are `unclear` that is the whole one, whatever the row says."""
    straight_R = np.nan_to_num(limits(loss_RP, level), nan=np.inf)
    first_R = _crossings(loss_RP, level)[0]
    unclear_R = _unresolved(loss_RP, level, growing=growing, convex=convex) | np.isin(first_R, unclear)
    late_R = np.where(first_R == loss_RP.shape[1], np.inf, first_R)
    return np.stack([np.where(unclear_R, first_R - 1.0, straight_R), late_R])


def lines(loss_PQ: ArrayLike, level: float, *, growing: bool = False) -> tuple[Line, ...]:
    """Lines of points (place on P, place on Q) along which the loss is `level`, by marching squares.

    Their points along a row or a column of settings are interpolated as its limit. A cell whose diagonal corners are
    above and the others below is split by the mean of its corners. Cells with a corner that is not finite are left out.
    """
    table_PQ = np.asarray(loss_PQ, dtype=np.float64)
    pieces = [
        piece
        for p in range(table_PQ.shape[0] - 1)
        for q in range(table_PQ.shape[1] - 1)
        for piece in _pieces(table_PQ, p, q, level, growing=growing)
    ]
    return tuple(_joined(pieces))


def _pieces(table_PQ: Array, p: int, q: int, level: float, *, growing: bool) -> Iterator[tuple[Point, Point]]:
    corners = [(p, q), (p + 1, q), (p + 1, q + 1), (p, q + 1)]  # around the cell
    values = [float(table_PQ[corner]) for corner in corners]
    if not np.isfinite(values).all():
        return
    above = [value > level for value in values]
    crossed = [side for side in range(4) if above[side] != above[(side + 1) % 4]]
    places = {side: _cross(corners, values, side, level, growing=growing) for side in crossed}
    if len(crossed) == 2:
        yield places[crossed[0]], places[crossed[1]]
    elif len(crossed) == 4:
        # Where the middle is above, the corners that are below stand alone; else those that are above.
        alone = sum(values) / 4 > level
        for corner in range(4):
            if above[corner] != alone:
                yield places[(corner - 1) % 4], places[corner]


def _cross(corners: list[tuple[int, int]], values: list[float], side: int, level: float, *, growing: bool) -> Point:
    following = (side + 1) % 4
    # From the same end whichever cell asks, so that neighbours find the same point to the last digit.
    one, other = (side, following) if corners[side] < corners[following] else (following, side)
    low, high = sorted((values[one], values[other]))
    passed = float(limits(np.array([[low, high]]), level, growing=growing)[0])
    part = passed if values[one] < values[other] else 1 - passed
    return (
        corners[one][0] + part * (corners[other][0] - corners[one][0]),
        corners[one][1] + part * (corners[other][1] - corners[one][1]),
    )


def _joined(pieces: list[tuple[Point, Point]]) -> Iterator[Line]:
    """Pieces that share an end, as one line each."""
    left = [piece for piece in pieces if piece[0] != piece[1]]
    while left:
        line = list(left.pop())
        grown = True
        while grown:
            grown = False
            for number, (one, other) in enumerate(left):
                if line[-1] in (one, other):
                    line.append(other if line[-1] == one else one)
                elif line[0] in (one, other):
                    line.insert(0, other if line[0] == one else one)
                else:
                    continue
                left.pop(number)
                grown = True
                break
        yield tuple(line)
