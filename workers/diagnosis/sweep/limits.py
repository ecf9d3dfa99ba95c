"""What a course says without any form: the near-lossless point, how far damage stays mild, and the slopes around it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from app.contracts.requests.base import Thresholds
from app.contracts.sweep_report import CrossingSlopes, Limit
from workers.diagnosis.sweep.course import Course, Turned
from workers.diagnosis.threshold.formfree import LimitPoint, largest_mild, near_lossless_of_documents

NEAR_LOSSLESS_RULE: Final = (
    "the published rule, 1.5 more points of perplexity on a reference of 6.157, taken as the ratio it was there: ln "
    "perplexity may rise by 0.218"
)


def near_lossless(course: Course, *, seed: int) -> Limit | None:
    """The near-lossless point, its interval over documents; None where no point is finite."""
    points = course.whole
    if not points:
        return None
    losses = course.losses(points, "perplexity")
    found = near_lossless_of_documents(course.axis(points), losses, course.dense(), seed=seed)
    return _limit(found, points, course, NEAR_LOSSLESS_RULE, interval=course.resampled(losses))


def mild(course: Course, thresholds: Thresholds) -> Limit | None:
    """The largest setting whose severity stays mild: the upper limit of its excess KL stays below `moderate`.

    A point without an interval counts as wide as its mean: it has none to be sure by, and the report says so.
    """
    points = [point for point in course.whole if point.record.excess_kl is not None]
    if not points:
        return None
    means = [point.record.excess_kl for point in points]
    kl = [mean.mean or 0.0 for mean in means if mean is not None]
    ends = [mean.ci or (mean.mean or 0.0, mean.mean or 0.0) for mean in means if mean is not None]
    found = largest_mild(
        course.axis(points), kl, [low for low, _ in ends], [high for _, high in ends], thresholds.moderate
    )
    rule = (
        f"severity stays mild while the upper 95 % limit of the excess KL is below {thresholds.moderate:g} nats a token"
    )
    known = all(mean is not None and mean.ci is not None for mean in means)
    return _limit(found, points, course, rule, interval=known)


def crossing_slopes(course: Course, limit: Limit | None) -> CrossingSlopes | None:
    """Slopes of ln perplexity on either side of a limit's place; None where it has no place, or no axis of numbers."""
    if limit is None or limit.at is None or course.axis_kind == "order":
        return None
    points = course.whole
    place_P = np.array(course.axis(points))
    losses = course.losses(points, "perplexity")
    log_P = losses.logs()
    # Strength may rise as the value falls: below is the weaker side.
    rising = len(place_P) < 2 or place_P[-1] >= place_P[0]
    weaker_P = place_P <= limit.at if rising else place_P >= limit.at
    return CrossingSlopes(
        at=limit.at,
        below=_slope(place_P[weaker_P], log_P[weaker_P]),
        above=_slope(place_P[~weaker_P], log_P[~weaker_P]),
    )


def _slope(x_P: Any, y_P: Any) -> float | None:
    if len(x_P) < 2 or np.ptp(x_P) == 0:
        return None
    slope = float(np.polyfit(x_P, y_P, 1)[0])
    return slope if math.isfinite(slope) else None


def _limit(found: LimitPoint, points: Sequence[Turned], course: Course, rule: str, *, interval: bool) -> Limit:
    largest = None
    if found.largest is not None:
        places = course.axis(points)
        largest = points[places.index(found.largest)].value
    return Limit(limit=found.limit, largest=largest, at=found.at, ci=found.ci if interval else None, rule=rule)
