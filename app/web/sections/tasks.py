"""What a tasks job found: is the candidate worse, what flips, what KL made one expect, what could be shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from app.kinds.tasks.report import AnyTaskResult, Outcome, Share, TasksReport
from app.models.tasks.power import level_told
from app.reports.blocks import Figure, Table
from app.web import format as fmt
from app.web.charts_flips import Band, FlipDot, flips_chart
from app.web.sections.tasks_classes import AnswersByClass, answers_by_class
from app.web.sections.tasks_tables import (
    Examples,
    examples_of,
    metrics_table,
    power_table,
    predictions_table,
    results_table,
    tests_table,
)
from app.web.sections.tasks_words import (
    OUTCOMES,
    by_outcome,
    heading,
    outcome,
    points,
    results_note,
    score,
    tests_note,
    worst_outcome,
)
from app.web.untrusted import visible


@dataclass(frozen=True)
class Answers:
    """Texts, figures, charts and tables of the page."""

    heading: str
    good: bool
    bad: bool
    sentence: str
    outcome: str
    figures: tuple[Figure, ...]
    results: Table
    results_note: str
    tests: Table
    tests_note: str
    metrics: Table
    classes: AnswersByClass
    examples: tuple[Examples, ...]
    chart: Markup | None
    predictions: Table
    prediction_note: str
    power: Table
    power_note: str


def answers(report: TasksReport) -> Answers:
    """The view of a report."""
    outcomes = {result.outcome for result in report.results}
    return Answers(
        heading=heading(report),
        good=outcomes <= {"equivalent", "better"} and not report.unscored,
        bad="worse" in outcomes,
        sentence=visible(report.verdict),
        outcome=outcome(report),
        figures=_figures(report),
        results=results_table(report),
        results_note=results_note(report),
        tests=tests_table(report),
        tests_note=tests_note(report),
        metrics=metrics_table(report),
        classes=answers_by_class(report),
        examples=tuple(examples_of(result) for result in report.results if result.examples),
        chart=_chart(report),
        predictions=predictions_table(report),
        prediction_note=(
            "Learned from this service’s own earlier runs of other candidates, before the answers of this job were "
            "looked at. The interval is for a run of as many items."
        ),
        power=power_table(report),
        power_note=(
            "Smallest true difference in accuracy that McNemar’s exact test shows with 80 % power, by the flip rate "
            f"that was assumed or predicted before the run, at the {level_told(report.results[0].detectable.level)}."
        ),
    )


def _figures(report: TasksReport) -> tuple[Figure, ...]:
    """Of several tasks how many came out how, then of the first one of the worst outcome; each figure names it."""
    worst = worst_outcome(report)
    of = next((result for result in report.results if result.outcome == worst), report.results[0])
    difference, rate = points(of.difference), fmt.estimate(of.flips.rate.mean, of.flips.rate.ci, percent=True)
    name, several = visible(of.name), len(report.results) + len(report.unscored) > 1
    items = f"{name}, {fmt.count(of.items)} items"
    beside = f"; the reference {score(of.reference.mean)} {points(of.reference).interval or ''}" if several else ""
    return (
        *((_counted(report, worst),) if several else ()),
        Figure("Difference", difference.value, "points of accuracy", difference.interval or "", f"{name}, paired"),
        Figure(
            "Flips",
            rate.value,
            "% of items",
            rate.interval or "",
            f"{name}, {fmt.count(of.flips.harmful)} to wrong, {fmt.count(of.flips.helpful)} to right",
        ),
        *(() if several else (_right("Reference", of.reference, items),)),
        _right("Candidate", of.candidate, f"{items}{beside}".rstrip()),
    )


def _right(who: str, share: Share, note: str) -> Figure:
    return Figure(who, score(share.mean), "% right", points(share).interval or "", note)


def _counted(report: TasksReport, worst: Outcome) -> Figure:
    """The tasks by outcome."""
    counts = by_outcome(report)
    others = [f"{count} {OUTCOMES[name]}" for name, count in counts.items() if name != worst]
    others += [f"{len(report.unscored)} not scored"] if report.unscored else []
    value = f"{fmt.count(counts[worst])} of {fmt.count(len(report.results) + len(report.unscored))}"
    return Figure("Outcome", value, f"tasks {OUTCOMES[worst]}", "", ", ".join(others))


def _chart(report: TasksReport) -> Markup | None:
    kl = report.divergence.kl.mean
    own: Sequence[AnyTaskResult] = [result for result in report.results if result.outcome != "at_chance"] if kl else []
    dots = [FlipDot(visible(run.task), run.kl, run.rate, None, own=False) for run in report.seen]
    dots += [
        FlipDot(visible(result.name), kl or 0.0, result.flips.rate.mean, result.flips.rate.ci, own=True)
        for result in own
    ]
    band = None
    if report.curve is not None:
        curve = report.curve
        what = f"95 % prediction interval for {fmt.count(curve.items)} items"
        band = Band(curve.kl, curve.rate, curve.low, curve.high, what)
    return flips_chart(dots, band)
