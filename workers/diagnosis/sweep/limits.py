"""What a course says without any form: the near-lossless point, and how far damage stays mild."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from app.contracts.request import Thresholds
from app.kinds.sweep.report import Limit, Setting
from workers.analysis.threshold.documents import DocumentLosses
from workers.analysis.threshold.formfree import LimitPoint, largest_mild, near_lossless_of_documents
from workers.diagnosis.sweep.course import Course, MeasuredPoint


def near_lossless(course: Course, *, seed: int) -> Limit | None:
    """The near-lossless point, its interval over documents; None if no point is finite, or no order is known."""
    points, collapsed = course.until_collapse()
    if not points or course.alone:
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
    return _limit(found, points, interval=course.resampled(losses))


def _by_loss(course: Course, points: tuple[MeasuredPoint, ...]) -> tuple[tuple[MeasuredPoint, ...], DocumentLosses]:
    """Whole points in the order of strength, by perplexity where it does not tell them apart; and their losses."""
    losses = course.losses(points, "perplexity")
    log_P = losses.logs()
    rank_P = sorted(range(len(points)), key=lambda place: (course.rank(points[place]), log_P[place]))
    return tuple(points[place] for place in rank_P), replace(losses, sum_PD=losses.sum_PD[rank_P])


def mild(course: Course, thresholds: Thresholds) -> Limit | None:
    """The largest setting whose severity stays mild: the upper limit of its excess KL stays below `moderate`.

    A point with logits that are not finite is a collapse, and ends what stays mild. None if nothing can be judged:
    no setting was measured, no order of strength is known, or a single window of text leaves no interval.
    """
    if course.alone:
        return None
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
    return _limit(found, points, interval=True)


def _limit(found: LimitPoint, points: Sequence[MeasuredPoint], *, interval: bool) -> Limit:
    largest = None if found.last is None else Setting(value=points[found.last].value)
    return Limit(limit=found.limit, largest=largest, at=found.at, ci=found.ci if interval else None)
