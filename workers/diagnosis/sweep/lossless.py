"""The near-lossless point by the whole published rule: the perplexity half, and at most 5 % lost on tasks in the mean.

Settings that are near-lossless by perplexity are asked from the strongest down, until one is within the 5 %. Answering
tasks costs more than a point of the curve, and what is weaker than a setting within both halves need not be asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal

from app.kinds.sweep.lossless import AnsweredSetting, NearLossless, Setting
from app.kinds.sweep.report import Limit
from workers.diagnosis.sweep.course import Course, MeasuredPoint
from workers.diagnosis.sweep.limits import by_perplexity
from workers.diagnosis.sweep.undecided import undecided_by_perplexity

# Settings that are asked at most, on each side of a neutral value.
MOST_ASKED: Final = 8
Half = Literal["perplexity", "tasks", "nothing"]


def near_lossless_rule(
    course: Course, limit: Limit | None, ask: Callable[[MeasuredPoint], AnsweredSetting]
) -> NearLossless | None:
    """The answer for a run of settings whose perplexity half is `limit`; None if that is not known. `ask` has both
    models answer the tasks at a setting, and its errors are passed on."""
    if limit is None:
        return None
    settings, beyond = by_perplexity(course, limit)
    neutral = None if course.order is None else course.order.neutral
    changing = [point for point in settings if neutral is None or point.value != neutral]
    answered = _asked(changing, ask)
    last = answered[-1] if answered else None
    largest: MeasuredPoint | None = None
    if last is not None and last.within:
        largest = next(point for point in changing if point.value == last.value)
    elif len(changing) == len(answered) and len(settings) > len(changing) and (last is None or last.within is False):
        largest = settings[0]  # the neutral value, which changes nothing and so loses nothing
    by: Half | None
    collapsed = course.until_collapse()[1]
    if last is not None and last.within is None:
        by = None
    elif last is not None and (last.within is False or len(answered) > 1):
        by = "tasks"
    else:
        by = "nothing" if settings and collapsed is None and not beyond else "perplexity"
    # A weaker setting counts where the order says that a stronger one cannot be within without it.
    kept = () if largest is None else settings[: settings.index(largest) + 1]
    past = beyond if by == "perplexity" else ()
    open_ = undecided_by_perplexity(course, kept[-1:] if course.alone else kept, past, limit.limit)
    return NearLossless(
        largest=None if largest is None else Setting(value=largest.value),
        limited_by=by,
        decided=all(one.decided for one in answered) and not open_,
        open_by_perplexity=tuple(point.value for point in open_),
        answered=tuple(answered),
        at_chance=tuple(
            dict.fromkeys(task.name for one in answered for task in one.tasks if task.loss is None),
        ),
        unasked=0 if last is None or last.within or last.within is None else len(changing) - len(answered),
    )


def _asked(settings: Sequence[MeasuredPoint], ask: Callable[[MeasuredPoint], AnsweredSetting]) -> list[AnsweredSetting]:
    """From the strongest down: up to the first within the limit, or the first that can tell nothing, as the reference,
    which is the same for all, is at chance."""
    answered: list[AnsweredSetting] = []
    for point in reversed(settings[-MOST_ASKED:]):
        answered.append(ask(point))
        if answered[-1].within is not False:
            break
    return answered
