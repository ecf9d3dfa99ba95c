"""Settings of a course of which it is open whether their damage stays mild."""

from __future__ import annotations

from pydantic import JsonValue

from app.contracts.sweep_report import Limit
from workers.diagnosis.sweep.course import Course


def undecided(course: Course, limit: Limit) -> tuple[JsonValue, ...]:
    """The values beyond the last mild one whose interval holds the limit of the excess KL, up to the first whose
    interval lies beyond it; of a course whose points are judged one by one all of that kind."""
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
