"""What settings of a sweep lose on tasks, and the near-lossless point by both halves of the published rule."""

from __future__ import annotations

from typing import Final

from app.contracts.report import Mean
from app.kinds.sweep.lossless import AnsweredSetting, AnsweredTask, NearLossless
from app.kinds.sweep.report import SweepReport
from app.kinds.tasks.answers import ASKED, DECIMALS, asked, metric_name
from app.models.knobs import told
from app.reports import format as fmt
from app.reports.blocks import Cell, Column, Table
from app.reports.charts.marks import Guide, axis, interval_strip
from app.reports.scales import LinearScale
from app.reports.untrusted import visible

# Said wherever the perplexity half is alone.
HALF: Final = (
    "Near-lossless by perplexity is one half of the published rule. The other, at most 5 % of accuracy lost on tasks "
    "in the mean, was not asked: name tasks in the request (--task shipped) to ask it."
)
_STOPPED: Final = {
    "tasks": "stopped by tasks",
    "perplexity": "stopped by perplexity",
    "nothing": "not in the measured range",
    None: "cannot be known",
}


def rules_of(report: SweepReport) -> list[tuple[str, NearLossless]]:
    """(which side, the answer by the whole rule): of both sides of a neutral value, else of all settings, whose side is
    empty; none where no tasks were asked."""
    sides = [(f"{side.side} {told(report.knob.neutral)}", side.near_lossless_rule) for side in report.sides]
    return [(side, rule) for side, rule in [("", report.near_lossless_rule), *sides] if rule is not None]


def largest_of(rule: NearLossless) -> str:
    """The strongest setting within both halves; a dash where there is none."""
    return fmt.NONE if rule.largest is None else visible(told(rule.largest.value))


def stopped_by(rule: NearLossless) -> str:
    """Which half stops the knob, and by which halves that is open, where these are others."""
    halves = ["perplexity"] * bool(rule.open_by_perplexity) + ["tasks"] * bool(rule.open_by_tasks)
    by = _STOPPED[rule.limited_by]
    if not halves or rule.limited_by is None:
        return by
    return f"{by}, open" if halves == [rule.limited_by] else f"{by}, open by {' and '.join(halves)}"


def rule_in_words(field: str, side: str, rule: NearLossless) -> str:
    """How far the knob `field` is near-lossless by both halves on a side of its neutral value, and what stops it."""
    where = f", {side}" if side else ""
    chance = f" The reference is at chance on {', '.join(rule.at_chance)}." if rule.at_chance else ""
    if rule.limited_by is None:
        return visible(f"Near-lossless by both halves{where}: cannot be known.{chance}")
    found = "no value" if rule.largest is None else f"up to {field} {told(rule.largest.value)}"
    last = rule.answered[-1] if rule.answered else None
    shown = ""
    if last is not None and last.degradation is not None:
        shown = f"; at {told(last.value)} {lost_in_words(last.degradation)} on tasks"
    unasked = f"; {fmt.counted(rule.unasked, 'weaker setting')} not asked" if rule.unasked else ""
    return visible(f"Near-lossless by both halves{where}: {found}, {stopped_by(rule)}{shown}{unasked}.{chance}")


def lost(mean: Mean | None) -> fmt.Estimate:
    """A part of accuracy in per cent, with one decimal, as accuracies are reported."""
    if mean is None:
        return fmt.Estimate(fmt.NONE, None)
    return fmt.estimate(mean.mean, mean.ci, percent=True, decimals=DECIMALS)


def lost_in_words(mean: Mean) -> str:
    """`3.1 [1.2, 5.6] % lost`; of a gain `3.1 [1.2, 5.6] % gained`."""
    found, word = mean, "lost"
    if mean.mean is not None and mean.mean < 0:
        ci = None if mean.ci is None else (-mean.ci[1], -mean.ci[0])
        found, word = Mean(mean=-mean.mean, ci=ci), "gained"
    shown = lost(found)
    return f"{shown.value} {shown.interval or ''} % {word}"


def outcome(one: AnsweredSetting) -> str:
    """On which side of the 5 % a setting is, and whether its whole interval is."""
    if one.within is None:
        return "at chance"
    return f"{'within' if one.within else 'beyond'} 5 %{'' if one.decided else ', open'}"


def answered_table(report: SweepReport) -> Table:
    """Every setting that was asked: a row a task, and the mean that decides."""
    rules = rules_of(report)
    every = [one for _, rule in rules for one in rule.answered]
    known = [one.degradation for one in every] + [task.loss for one in every for task in one.tasks]
    ends = [100 * value for mean in known if mean is not None for value in (mean.mean or 0.0, *(mean.ci or ()))]
    low, high = min([0.0, *ends]), max([5.0, *ends])
    room = 0.06 * (high - low)
    scale = LinearScale(low - room, high + room)
    limit = rules[0][1].limit if rules else 0.0
    rows = [row for one in every for row in _rows(one, scale, limit)]
    return Table(
        caption="What is lost on tasks, in the order asked",
        columns=(
            Column(visible(report.knob.field), "name"),
            Column("Task", "text"),
            *ASKED,
            Column("Lost, % of the reference’s"),
            Column("Lost, with 95 % interval", "chart"),
            Column("Outcome", "text"),
        ),
        rows=tuple(rows),
        axis=axis(scale, "% of the reference’s accuracy that is lost"),
        style="stack strips",
    )


def _rows(one: AnsweredSetting, scale: LinearScale, limit: float) -> list[tuple[Cell, ...]]:
    name = visible(told(one.value))
    rows = [_task(name, task, scale, limit) for task in one.tasks]
    if len(rows) > 1:
        counted = sum(task.loss is not None for task in one.tasks)
        mean = Cell("mean", f"over {fmt.counted(counted, 'task')}", strong=True)
        rows.append((Cell(name), mean, *[Cell(fmt.NONE)] * len(ASKED), *_lost(name, one.degradation, scale, limit)))
    outcomes = [Cell(fmt.NONE)] * (len(rows) - 1) + [Cell(outcome(one), strong=one.within is False)]
    return [(*row, last) for row, last in zip(rows, outcomes, strict=True)]


def _task(name: str, task: AnsweredTask, scale: LinearScale, limit: float) -> tuple[Cell, ...]:
    return (
        Cell(name),
        Cell(visible(task.name), metric_name(task.metric)),
        *asked(task.items, task.reference, task.candidate, task.harmful, task.helpful),
        *_lost(f"{name}, {visible(task.name)}", task.loss, scale, limit),
    )


def _lost(name: str, mean: Mean | None, scale: LinearScale, limit: float) -> tuple[Cell, Cell]:
    if mean is None or mean.mean is None:
        return Cell(fmt.NONE, "reference at chance"), Cell(fmt.NONE)
    shown = lost(mean)
    ci = None if mean.ci is None else (100 * mean.ci[0], 100 * mean.ci[1])
    guides = [Guide(0.0, "base"), Guide(100 * limit, "floor")]
    strip = interval_strip(f"{name}: {shown} % lost", 100 * mean.mean, ci, scale, guides)
    return Cell(shown.value, shown.interval or "", strong=True), Cell(chart=strip)


def answered_note(report: SweepReport) -> str:
    """How what is lost is found, what it leaves out, and the answers in words; empty if no tasks were asked."""
    rules = rules_of(report)
    if not rules:
        return ""
    how = (
        "Lost is (reference − candidate) / reference in accuracy on the same items, below 0 where accuracy is gained; "
        "the mean has each task once. Intervals are over items, paired. The settings that are near-lossless by "
        "perplexity are asked from the strongest down, until one is within 5 %. Open says that an interval holds its "
        "limit: by tasks that of what is lost, by perplexity that of its ratio, at the answer or the next setting."
    )
    words = [rule_in_words(report.knob.field, side, rule) for side, rule in rules]
    return visible(" ".join([*words, how]))
