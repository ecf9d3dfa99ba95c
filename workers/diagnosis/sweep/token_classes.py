"""The curve of a sweep, token class by token class: prose may stay mild where numbers no longer do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from app.contracts.requests.base import Thresholds
from app.contracts.sweep_report import SweepSlice, SweepTokenClass, SweepTokenClasses
from app.models.knobs import told
from workers.diagnosis.numerals import counted
from workers.diagnosis.points.class_sums import ClassSums
from workers.diagnosis.sweep.course import Course, Turned
from workers.diagnosis.sweep.slices import PartSums, sliced
from workers.diagnosis.token_classes.catalogue import CLASSES, NONE

# Settings that a sentence names.
_MOST = 3


def token_classes(
    course: Course, *, floor: float, thresholds: Thresholds, seed: int, check_cancelled: Callable[[], None]
) -> SweepTokenClasses:
    """Each class of the catalogue that some position is in, and the positions in none; `floor` is the mean noise floor.

    A class in fewer documents than intervals are clustered by has means only. No class is told where a point lacks its
    sums by class, or counts other tokens to a class than the others do: both are of points that another version
    measured.
    """
    whole = course.whole
    if not whole:
        return SweepTokenClasses()
    sums = [point.record.class_sums for point in whole]
    known = [one for one in sums if one is not None]
    if len(known) < len(sums):
        lacking = [point for point, one in zip(whole, sums, strict=True) if one is None]
        return SweepTokenClasses(note=_no_sums(lacking, len(whole)))
    if any(_tokens(one) != _tokens(known[0]) for one in known):
        return SweepTokenClasses(
            note="Token classes are not told: settings that different versions measured count different tokens to a "
            "class. Run the sweep again to have them."
        )

    def part(name: str) -> SweepSlice:
        check_cancelled()
        own = [one[name] for one in known]
        of = PartSums(own[0].tokens_W, [one.kl_W for one in own], [one.log_ratio_W for one in own])
        return sliced(course, of, floor=floor, thresholds=thresholds, seed=seed)

    return SweepTokenClasses(
        classes=tuple(
            SweepTokenClass(**dict(part(one.name)), name=one.name, title=one.title, definition=one.definition)
            for one in CLASSES
            if one.name in known[0]
        ),
        none=part(NONE) if NONE in known[0] else None,
        absent=tuple(one.title for one in CLASSES if one.name not in known[0]),
    )


def _tokens(sums: Mapping[str, ClassSums]) -> dict[str, bytes]:
    return {name: one.tokens for name, one in sums.items()}


def _no_sums(lacking: Sequence[Turned], of: int) -> str:
    names = ", ".join(told(point.value) for point in lacking[:_MOST]) + (", …" if len(lacking) > _MOST else "")
    return (
        f"Token classes are not told: {len(lacking)} of {counted(of, 'setting')} ({names}), which an earlier version "
        f"measured, {'has' if len(lacking) == 1 else 'have'} no sums by class. Run the sweep again to have them."
    )
