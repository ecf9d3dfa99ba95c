"""The near-lossless point by the whole published rule, in plain words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from app.kinds.sweep.lossless import AnsweredSetting, NearLossless
from app.models.knobs import told
from workers.analysis.numerals import counted, numeral
from workers.diagnosis.sweep.course import Turned
from workers.diagnosis.sweep.undecided import has_interval


@dataclass(frozen=True)
class PerplexityHalf:
    """What perplexity says: `limit` on the rise of its logarithm, the settings of which it is `open_` on which side of
    it they are, and the one that comes `next_` after those that are within, null where none was measured. `alone`: no
    order of strength is known, so that settings stand by their perplexity."""

    limit: float
    open_: Sequence[Turned]
    next_: Turned | None
    alone: bool

    @property
    def ratio(self) -> str:
        """The limit as times the unmodified model's perplexity."""
        return numeral(math.exp(self.limit), ".3f")

    def stopped(self, field: str, *, any_within: bool = True) -> str:
        """The setting that perplexity excludes first, and by how much."""
        if self.next_ is None:
            return "No other was measured"
        value, whole = f"{field} = {told(self.next_.value)}", self.next_.record.whole
        which = "next setting by perplexity" if self.alone else "next stronger setting"
        if not any_within:
            which = "setting of the lowest perplexity" if self.alone else "weakest setting"
        if not whole:
            return f"At the {which}, {value}, some logits are not finite"
        beyond = f"{'The' if any_within else 'Even the'} {which}, {value}, is beyond the perplexity half"
        if self.next_ in self.open_:
            return f"{beyond} by its mean"
        return f"{beyond}: {_times(self.next_)}, where {self.ratio} times may be"

    def doubt(self, field: str) -> str:
        """What is open by perplexity, and what would narrow it; empty where nothing is."""
        if not self.open_:
            return ""
        where = f"That is open by perplexity: at {field} = "
        if not all(has_interval(point) for point in self.open_):
            values = " and ".join(told(point.value) for point in self.open_)
            return f"{where}{values} too little text was scored for an interval"
        held, it = ("intervals hold", "them") if len(self.open_) > 1 else ("interval holds", "it")
        listed = " and ".join(f"{told(point.value)} ({_times(point)})" for point in self.open_)
        return f"{where}{listed} the {held} the limit of {self.ratio}, and more text would narrow {it}"


def rule_in_words(found: NearLossless, half: PerplexityHalf, field: str, neutral: float | None) -> str:
    """How far the knob `field` is near-lossless by the whole rule, what stops it, and what is not decided. `neutral` is
    the value that changes nothing, where the knob has one."""
    rule = "By the whole published rule"
    if not found.answered:
        none = f"no value of {field} is near-lossless"
        if found.largest is not None:
            none = f"only {field} = {told(neutral)} is near-lossless, which changes nothing"
        return _joined([f"{rule} {none}", half.stopped(field, any_within=found.largest is not None), half.doubt(field)])
    last = found.answered[-1]
    if last.within is None:
        return (
            f"What tasks lose at {field} = {told(last.value)}, the strongest setting that is near-lossless by "
            f"perplexity, cannot be known: the reference itself is at chance on {' and '.join(found.at_chance)}."
        )
    rejected = [one for one in found.answered if not one.within]
    if last.within:
        parts = [f"{rule} {field} = {told(last.value)} is the strongest near-lossless setting: {_lost(last)}"]
        if rejected:
            parts.append(f"At {_listed(rejected, field)} perplexity would allow it, and the tasks do not")
        elif found.limited_by == "nothing":
            parts.append("It is the strongest setting measured, and within both halves")
        else:
            parts.append(half.stopped(field))
    else:
        parts = [f"{rule} {_none_within(found, field, neutral)}: at {field} = {told(last.value)} {_lost(last)}"]
    parts.append(half.doubt(field))
    if found.open_by_tasks:
        held, it = ("intervals hold", "them") if len(found.open_by_tasks) > 1 else ("interval holds", "it")
        where = " and ".join(told(value) for value in found.open_by_tasks)
        parts.append(f"That is open by tasks: at {field} = {where} the {held} 5 %, and more items would narrow {it}")
    if found.at_chance:
        parts.append(f"Left out, since the reference itself is at chance there: {', '.join(found.at_chance)}")
    return _joined(parts)


def _joined(sentences: Sequence[str]) -> str:
    return " ".join(f"{one}." for one in sentences if one)


def _times(point: Turned) -> str:
    """`1.250 times, 95 % interval 1.223 to 1.282`: perplexity over the unmodified model's."""
    ratio = None if point.record.perplexity is None else point.record.perplexity.ratio
    if ratio is None or ratio.mean is None:
        return "a perplexity beyond all numbers"
    ends = "" if ratio.ci is None else f", 95 % interval {' to '.join(numeral(end, '.3f') for end in ratio.ci)}"
    return f"{numeral(ratio.mean, '.3f')} times the perplexity{ends}"


def _none_within(found: NearLossless, field: str, neutral: float | None) -> str:
    if found.unasked:
        return (
            f"no near-lossless value of {field} was found among the {len(found.answered)} strongest that perplexity "
            f"allows, and {counted(found.unasked, 'weaker one')} {'was' if found.unasked == 1 else 'were'} not asked"
        )
    if found.largest is not None:
        return f"only {field} = {told(neutral)} is near-lossless, which changes nothing"
    return f"no value of {field} is near-lossless"


def _listed(rejected: Sequence[AnsweredSetting], field: str) -> str:
    """Of each how much is lost, which is more than may be."""

    def told_(one: AnsweredSetting) -> str:
        mean, ci = _percents(one)
        return f"{numeral(mean, '.1f')} %{'' if ci is None else f', 95 % interval {_interval(mean, ci)}'}"

    return f"{field} = " + " and ".join(f"{told(one.value)} ({told_(one)})" for one in rejected)


def _lost(one: AnsweredSetting) -> str:
    """What is lost; of a gain how many more are right."""
    tasks = [task.name for task in one.tasks if task.loss is not None]
    over = f"on {tasks[0]}" if len(tasks) == 1 else f"in the mean over {len(tasks)} tasks"
    mean, ci = _percents(one)
    interval = "" if ci is None else f" (95 % interval {_interval(mean, ci)})"
    if mean < 0:
        more = f"{numeral(-mean, '.1f')} % more answers are right than the reference's {over}"
        return f"{more}{interval}, where 5 % fewer may be"
    return f"{numeral(mean, '.1f')} %{interval} of the reference's accuracy is lost {over}, where 5 % may be"


def _interval(mean: float, ci: tuple[float, float]) -> str:
    """The ends of what is lost, in the words that the mean is reported in; where they lie on both sides of 0 each says
    which it is."""
    low, high = ci
    if low < 0 < high:
        gained, lost = numeral(-low, ".1f"), numeral(high, ".1f")
        return f"{lost} % fewer to {gained} % more" if mean < 0 else f"{gained} % gained to {lost} % lost"
    ends = (-high, -low) if mean < 0 else ci
    return " to ".join(numeral(end, ".1f") for end in ends)


def _percents(one: AnsweredSetting) -> tuple[float, tuple[float, float] | None]:
    """The mean loss and its interval, in per cent: below 0 a gain. Of a setting that has one."""
    lost = one.degradation
    assert lost is not None and lost.mean is not None  # noqa: S101 - without one nothing is within or beyond
    return 100 * lost.mean, None if lost.ci is None else (100 * lost.ci[0], 100 * lost.ci[1])
