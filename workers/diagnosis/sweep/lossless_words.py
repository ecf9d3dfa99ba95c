"""The near-lossless point by the whole published rule, in plain words."""

from __future__ import annotations

from collections.abc import Sequence

from app.contracts.lossless import AnsweredSetting, NearLossless
from app.models.knobs import told
from workers.diagnosis.numerals import counted, numeral


def rule_in_words(found: NearLossless, field: str, neutral: float | None) -> str:
    """How far the knob `field` is near-lossless by the whole rule, what stops it, and what is not decided. `neutral` is
    the value that changes nothing, where the knob has one."""
    rule = "By the whole published rule"
    if not found.answered:
        if not found.any_within:
            return f"{rule} no value of {field} is near-lossless: perplexity alone excludes all that were measured."
        only = f"only {field} = {told(neutral)} is near-lossless, which changes nothing"
        return f"{rule} {only}: perplexity excludes the others."
    last = found.answered[-1]
    if last.within is None:
        return (
            f"What tasks lose at {field} = {told(last.value)}, the strongest setting that is near-lossless by "
            f"perplexity, cannot be told: the reference itself is at chance on {' and '.join(found.at_chance)}."
        )
    rejected = [one for one in found.answered if not one.within]
    if last.within:
        parts = [f"{rule} {field} = {told(last.value)} is the strongest near-lossless setting: {_lost(last)}"]
        if rejected:
            parts.append(f"At {_listed(rejected, field)} perplexity would allow it, and the tasks do not")
        elif found.limited_by == "nothing":
            parts.append("It is the strongest setting measured, and within both halves")
        else:
            parts.append("Stronger settings are beyond the perplexity half")
    else:
        parts = [f"{rule} {_none_within(found, field, neutral)}: at {field} = {told(last.value)} {_lost(last)}"]
    open_ = [one for one in found.answered if not one.decided]
    if open_:
        held, it = ("intervals hold", "them") if len(open_) > 1 else ("interval holds", "it")
        where = " and ".join(told(one.value) for one in open_)
        parts.append(f"That is not decided: at {field} = {where} the {held} 5 %, and more items would narrow {it}")
    if found.at_chance:
        parts.append(f"Left out, since the reference itself is at chance there: {', '.join(found.at_chance)}")
    return ". ".join(parts) + "."


def _none_within(found: NearLossless, field: str, neutral: float | None) -> str:
    if found.unasked:
        return (
            f"no near-lossless value of {field} was found among the {len(found.answered)} strongest that perplexity "
            f"allows, and {counted(found.unasked, 'weaker one')} {'was' if found.unasked == 1 else 'were'} not asked"
        )
    if found.any_within:
        return f"only {field} = {told(neutral)} is near-lossless, which changes nothing"
    return f"no value of {field} is near-lossless"


def _listed(rejected: Sequence[AnsweredSetting], field: str) -> str:
    return f"{field} = " + " and ".join(f"{told(one.value)} ({_percents(one)})" for one in rejected)


def _lost(one: AnsweredSetting) -> str:
    tasks = [task.name for task in one.tasks if task.loss is not None]
    over = f"on {tasks[0]}" if len(tasks) == 1 else f"in the mean over {len(tasks)} tasks"
    percents, _, interval = _percents(one).partition(", ")
    return f"{percents}{interval and f' ({interval})'} of the reference's accuracy is lost {over}, where 5 % may be"


def _percents(one: AnsweredSetting) -> str:
    """`3.1 %, 95 % interval 1.2 to 5.6`: a loss below 0 is a gain."""
    lost = one.degradation
    if lost is None or lost.mean is None:
        return "not known"
    ends = "" if lost.ci is None else f", 95 % interval {' to '.join(numeral(100 * end, '.1f') for end in lost.ci)}"
    return f"{numeral(100 * lost.mean, '.1f')} %{ends}"
