"""The curve of a sweep, token class by token class: prose may stay mild where numbers no longer do."""

from __future__ import annotations

from collections.abc import Callable

from app.contracts.request import Thresholds
from app.kinds.sweep.report import SweepSlice, SweepTokenClass, SweepTokenClasses
from workers.diagnosis.sweep.course import Course
from workers.diagnosis.sweep.slices import PartSums, sliced
from workers.text.token_classes.catalogue import CLASSES, NONE


def token_classes(
    course: Course, *, floor: float, thresholds: Thresholds, seed: int, check_cancelled: Callable[[], None]
) -> SweepTokenClasses:
    """Each class of the catalogue that some position is in, and the positions in none; `floor` is the mean noise floor.

    A class in fewer documents than intervals are clustered by has means only.
    """
    whole = course.whole
    if not whole:
        return SweepTokenClasses()
    sums = [point.record.by_class for point in whole]

    def part(name: str) -> SweepSlice:
        check_cancelled()
        own = [one[name] for one in sums]
        of = PartSums(own[0].tokens_W, [one.kl_W for one in own], [one.log_ratio_W for one in own])
        return sliced(course, of, floor=floor, thresholds=thresholds, seed=seed)

    there = sums[0]
    return SweepTokenClasses(
        classes=tuple(
            SweepTokenClass(**dict(part(one.name)), name=one.name, title=one.title, definition=one.definition)
            for one in CLASSES
            if one.name in there
        ),
        none=part(NONE) if NONE in there else None,
        absent=tuple(one.title for one in CLASSES if one.name not in there),
    )
