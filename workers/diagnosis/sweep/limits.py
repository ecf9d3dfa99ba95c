"""What a course says without any form: the near-lossless point, how far damage stays mild, and the slopes around it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from app.contracts.request import Thresholds
from app.kinds.sweep.lossless import Setting
from app.kinds.sweep.report import CrossingSlopes, Limit
from workers.analysis.threshold.documents import RESAMPLES, DocumentLosses
from workers.analysis.threshold.formfree import LimitPoint, largest_mild, near_lossless_of_documents
from workers.analysis.threshold.interval import CONFIDENCE
from workers.diagnosis.sweep.course import Course, MeasuredPoint
from workers.diagnosis.sweep.undecided import has_interval, undecided_by_perplexity

Array = NDArray[np.float64]


def near_lossless(course: Course, *, seed: int) -> Limit | None:
    """The near-lossless point, its interval over documents; None if no point is finite."""
    points, collapsed = course.until_collapse()
    if not points:
        return None
    points, losses = _by_loss(course, points)
    place_P, beyond = course.axis(points), None
    if collapsed is not None:
        # Whatever its finite positions say.
        beyond = course.axis([collapsed])[0]
        points = (*points, collapsed)
    found = near_lossless_of_documents(
        place_P, losses, course.dense(), collapse=beyond, convex=course.convex, seed=seed
    )
    limit = _limit(found, points, course, interval=course.resampled(losses))
    within, past = by_perplexity(course, limit)
    if not all(has_interval(point) for point in (*within, *past)):
        return limit
    open_ = undecided_by_perplexity(course, within, past, limit.limit)
    return limit.model_copy(update={"undecided": tuple(point.value for point in open_)})


def by_perplexity(course: Course, limit: Limit) -> tuple[tuple[MeasuredPoint, ...], tuple[MeasuredPoint, ...]]:
    """The settings up to the near-lossless point `limit`, and those beyond it before a collapse, weakest first. Those
    of the same strength come the least harmful first, and so do all of a knob without an order."""
    points, _ = _by_loss(course, course.until_collapse()[0])
    if limit.largest is None:
        return (), points
    last = next(place for place, point in enumerate(points) if point.value == limit.largest.value)
    return points[: last + 1], points[last + 1 :]


def _by_loss(course: Course, points: tuple[MeasuredPoint, ...]) -> tuple[tuple[MeasuredPoint, ...], DocumentLosses]:
    """Whole points in the order of strength, by perplexity where it does not tell them apart; and their losses."""
    losses = course.losses(points, "perplexity")
    log_P = losses.logs()
    rank_P = sorted(range(len(points)), key=lambda place: (course.rank(points[place]), log_P[place]))
    return tuple(points[place] for place in rank_P), replace(losses, sum_PD=losses.sum_PD[rank_P])


def mild(course: Course, thresholds: Thresholds) -> Limit | None:
    """The largest setting whose severity stays mild: the upper limit of its excess KL stays below `moderate`.

    A point with logits that are not finite is a collapse, and ends what stays mild. None if nothing can be judged:
    no setting was measured, or a single window of text leaves no interval.
    """
    points, collapsed = course.until_collapse()
    means = [point.record.excess_kl for point in points]
    kl = [mean.mean or 0.0 for mean in means if mean is not None]
    ends = [mean.ci for mean in means if mean is not None and mean.ci is not None]
    if len(ends) < len(points):
        return None
    if collapsed is not None:
        points = (*points, collapsed)
        kl.append(math.inf)
        ends.append((math.inf, math.inf))
    if not points:
        return None
    found = largest_mild(
        course.axis(points),
        kl,
        [low for low, _ in ends],
        [high for _, high in ends],
        thresholds.moderate,
        convex=course.convex,
    )
    return _limit(found, points, course, interval=True)


def crossing_slopes(course: Course, limit: Limit | None, *, seed: int) -> CrossingSlopes | None:
    """Slopes of ln perplexity on either side of a limit's place. Their intervals are over documents resampled jointly
    at all points. None if the limit has no place, or there is no axis of numbers."""
    if limit is None or limit.at is None or course.axis_kind == "order":
        return None
    points = course.whole
    place_P = np.array(course.axis(points))
    losses = course.losses(points, "perplexity")
    log_P = losses.logs()
    # Strength may rise as the value falls: below is the weaker side.
    rising = len(place_P) < 2 or place_P[-1] >= place_P[0]
    weaker_P = place_P <= limit.at if rising else place_P >= limit.at
    drawn_BP = drawn_logs(course, losses, seed=seed)
    below, below_ci = slope_of(place_P, log_P, drawn_BP, weaker_P)
    above, above_ci = slope_of(place_P, log_P, drawn_BP, ~weaker_P)
    return CrossingSlopes(at=limit.at, below=below, below_ci=below_ci, above=above, above_ci=above_ci)


def drawn_logs(course: Course, losses: DocumentLosses, *, seed: int) -> Array | None:
    """ln of the value at each setting in every draw of documents: (B, P); None if documents are too few."""
    return losses.logs(losses.draws(seed=seed, resamples=RESAMPLES)) if course.resampled(losses) else None


def slope_of(
    place_P: Array, log_P: Array, drawn_BP: Array | None, side_P: NDArray[np.bool_]
) -> tuple[float | None, tuple[float, float] | None]:
    """Least squares through the points of a side, and its 95 % percentiles over the draws of documents."""
    x_P, y_P = place_P[side_P], log_P[side_P]
    if len(x_P) < 2 or np.ptp(x_P) == 0:
        return None, None
    centred_P = (x_P - x_P.mean()) / ((x_P - x_P.mean()) ** 2).sum()
    slope = float(y_P @ centred_P)
    if not math.isfinite(slope):
        return None, None
    if drawn_BP is None:
        return slope, None
    tail = 0.5 * (1 - CONFIDENCE)
    low, high = np.quantile(drawn_BP[:, side_P] @ centred_P, [tail, 1 - tail])
    return slope, (min(float(low), slope), max(float(high), slope))


def _limit(found: LimitPoint, points: Sequence[MeasuredPoint], course: Course, *, interval: bool) -> Limit:
    largest = None if found.last is None else Setting(value=points[found.last].value)
    if course.alone:
        # Between settings without an order there is no place.
        return Limit(limit=found.limit, largest=largest, at=None, ci=None)
    ci = found.ci if interval else None
    return Limit(limit=found.limit, largest=largest, at=found.at, ci=ci)
