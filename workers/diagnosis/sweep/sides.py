"""What a course says without any form: of all of it, or of each side of the knob's neutral value apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from app.contracts.request import Thresholds
from app.kinds.sweep.lossless import AnsweredSetting, NearLossless
from app.kinds.sweep.report import CrossingSlopes, Limit, SweptSide
from workers.diagnosis.sweep.course import Course, MeasuredPoint
from workers.diagnosis.sweep.limits import crossing_slopes, mild, near_lossless
from workers.diagnosis.sweep.lossless import near_lossless_rule
from workers.diagnosis.sweep.undecided import undecided


@dataclass(frozen=True)
class FormFree:
    """The limits of a run of settings, and the slopes around the place where mild ends."""

    near_lossless: Limit | None = None
    largest_mild: Limit | None = None
    slopes: CrossingSlopes | None = None
    near_lossless_rule: NearLossless | None = None


Found = tuple[FormFree, tuple[SweptSide, ...]]


def with_tasks(course: Course, found: Found, ask: Callable[[MeasuredPoint], AnsweredSetting]) -> Found:
    """The same answers with the near-lossless point by the whole rule, of each side of a neutral value its own. `ask`
    has both models answer the tasks at a setting, and its errors are passed on."""
    whole, sides = found
    if not sides:
        return replace(whole, near_lossless_rule=near_lossless_rule(course, whole.near_lossless, ask)), ()
    return whole, tuple(
        side.model_copy(update={"near_lossless_rule": near_lossless_rule(part, side.near_lossless, ask)})
        for side, part in zip(sides, course.sides(), strict=True)
    )


def form_free(course: Course, thresholds: Thresholds, *, seed: int) -> Found:
    """The answers of the whole course. If its values are on both sides of a neutral one: nothing of the whole, and
    those of the sides below and above it."""
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
