"""What a course says without any form: of all of it, or of each side of the knob's neutral value apart."""

from __future__ import annotations

from dataclasses import dataclass

from app.contracts.requests.base import Thresholds
from app.contracts.sweep_report import CrossingSlopes, Limit, SweptSide
from workers.diagnosis.sweep.course import Course
from workers.diagnosis.sweep.limits import crossing_slopes, mild, near_lossless
from workers.diagnosis.sweep.undecided import undecided


@dataclass(frozen=True)
class FormFree:
    """The limits of a run of settings, and the slopes around the place where mild ends."""

    near_lossless: Limit | None = None
    largest_mild: Limit | None = None
    slopes: CrossingSlopes | None = None


def form_free(course: Course, thresholds: Thresholds, *, seed: int) -> tuple[FormFree, tuple[SweptSide, ...]]:
    """The answers of the whole course, or, where its values lie on both sides of a neutral one, nothing of the whole
    and those of the sides below and above it."""
    sides = course.sides()
    if not sides:
        return _answers(course, thresholds, seed=seed), ()
    below, above = (_answers(side, thresholds, seed=seed) for side in sides)
    return FormFree(), (SweptSide(side="below", **vars(below)), SweptSide(side="above", **vars(above)))


def _answers(course: Course, thresholds: Thresholds, *, seed: int) -> FormFree:
    limit = mild(course, thresholds)
    if limit is not None:
        limit = limit.model_copy(update={"undecided": undecided(course, limit)})
    return FormFree(near_lossless(course, seed=seed), limit, crossing_slopes(course, limit, seed=seed))
