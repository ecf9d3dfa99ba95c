"""Settings of a course of which it is open whether they are within a limit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from pydantic import JsonValue

from app.kinds.sweep.report import Limit
from workers.diagnosis.sweep.course import Course, MeasuredPoint

_UNKNOWN: Final = (0.0, math.inf)


def undecided(course: Course, limit: Limit) -> tuple[JsonValue, ...]:
    """The values beyond the last mild one whose interval holds the limit of the excess KL, up to the first whose
    interval is beyond it. In a course whose points are judged one by one, all of that kind."""
    points, _ = course.until_collapse()
    found: list[JsonValue] = []
    for point in points:
        excess = point.record.excess_kl
        low, high = (None, None) if excess is None or excess.ci is None else excess.ci
        if low is None or high is None or low >= limit.limit:
            if course.alone:
                continue
            break
        if high >= limit.limit:
            found.append(point.value)
    return tuple(found)


def undecided_by_perplexity(
    course: Course, within: Sequence[MeasuredPoint], beyond: Sequence[MeasuredPoint], limit: float
) -> tuple[MeasuredPoint, ...]:
    """The points of which it is open on which side of `limit`, a rise of ln perplexity, they are.

    Of `within`, whose means are below it, these are the points that are not wholly below. Of `beyond` they are the
    ones up to the first that is wholly above, or all such if points are judged one by one. All are whole points,
    weakest first. What has no interval is open; the knob's neutral value, which changes nothing, never is.
    """
    neutral, most = None if course.order is None else course.order.neutral, math.exp(limit)
    found = [point for point in within if (neutral is None or point.value != neutral) and not _ends(point)[1] < most]
    for point in beyond:
        if not _ends(point)[0] >= most:
            found.append(point)
        elif not course.alone:
            break
    return tuple(found)


def has_interval(point: MeasuredPoint) -> bool:
    """Whether it is known how far the ratio of a point's perplexity to the unmodified model's reaches."""
    return _ends(point) != _UNKNOWN


def _ends(point: MeasuredPoint) -> tuple[float, float]:
    """The interval of the ratio to the unmodified model's perplexity; without one everything is possible. One that is
    above all numbers has neither mean nor interval."""
    ratio = None if point.record.perplexity is None else point.record.perplexity.ratio
    if ratio is None:
        return _UNKNOWN
    if ratio.mean is None:
        return math.inf, math.inf
    return ratio.ci or _UNKNOWN
