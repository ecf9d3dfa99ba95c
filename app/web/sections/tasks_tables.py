"""The tables of what a tasks job found."""

from __future__ import annotations

from dataclasses import dataclass

from app.kinds.tasks.report import BOOTSTRAP_FLIPS, AnyTaskResult, Flipped, Share, TasksReport
from app.reports.blocks import Cell, Column, Table
from app.web import format as fmt
from app.web.charts import Guide, axis, interval_strip, mirrored_bars
from app.web.scales import LinearScale
from app.web.sections.tasks_words import (
    DECIMALS,
    OUTCOMES,
    bootstrapped,
    definition,
    detectable,
    metric_name,
    points,
    score,
)
from app.web.untrusted import visible

_MOST_TEXT = 400


def results_table(report: TasksReport) -> Table:
    """Accuracy of both models and their difference, a row a task."""
    margin = report.results[0].equivalence.margin
    values = [0.0, margin, -margin]
    for result in report.results:
        values += [result.difference.mean, *result.difference.ci]
    room = 0.06 * (max(values) - min(values))
    scale = LinearScale(100 * (min(values) - room), 100 * (max(values) + room))
    most = max(max(result.flips.harmful, result.flips.helpful) / result.items for result in report.results) or 1.0
    return Table(
        caption="Accuracy of both models on the same items",
        columns=(
            Column("Task", "name"),
            Column("Items"),
            Column("Reference, %"),
            Column("Candidate, %"),
            Column("Difference, points"),
            Column("Difference with 95 % interval", "chart"),
            Column("To wrong, to right"),
            Column("Flips", "text"),
            Column("Outcome", "text"),
        ),
        rows=tuple(_result(result, scale, most, margin) for result in report.results),
        axis=axis(scale, "points of accuracy, candidate − reference"),
    )


def _result(result: AnyTaskResult, scale: LinearScale, most: float, margin: float) -> tuple[Cell, ...]:
    difference = points(result.difference)
    ci = (100 * result.difference.ci[0], 100 * result.difference.ci[1])
    guides = [Guide(0.0, "base"), Guide(100 * margin, "floor"), Guide(-100 * margin, "floor")]
    name, flips = visible(result.name), result.flips
    bars = mirrored_bars(
        f"{name}: {flips.harmful} items to wrong, {flips.helpful} to right",
        -flips.harmful / result.items,
        flips.helpful / result.items,
        most,
    )
    return (
        Cell(name, f"{metric_name(result.metric)}{definition(result)}"),
        Cell(fmt.count(result.items)),
        Cell(score(result.reference.mean)),
        Cell(score(result.candidate.mean)),
        Cell(difference.value, difference.interval or "", strong=True),
        Cell(chart=interval_strip(f"{name}: {difference} points", 100 * result.difference.mean, ci, scale, guides)),
        Cell(f"{fmt.count(flips.harmful)}, {fmt.count(flips.helpful)}"),
        Cell(chart=bars),
        Cell(OUTCOMES[result.outcome], strong=result.outcome == "worse"),
    )


def tests_table(report: TasksReport) -> Table:
    """p values, corrected and not, and intervals, a row a task."""
    return Table(
        caption="Tests",
        columns=(
            Column("Task", "name"),
            Column("McNemar, p"),
            Column("McNemar, Holm’s p"),
            Column("Benjamini–Hochberg, q"),
            Column("Equivalence, p"),
            Column("Equivalence, Holm’s p"),
            Column("90 % interval, points"),
            Column("Bootstrap 95 %, points"),
            Column("Guessing, %"),
            Column("Better than guessing, p"),
        ),
        rows=tuple(
            (
                Cell(visible(result.name)),
                Cell(_p(result.mcnemar.p)),
                Cell(_p(result.mcnemar.p_holm), strong=True),
                Cell(_p(result.mcnemar.q_bh)),
                Cell(_p(result.equivalence.p)),
                Cell(_p(result.equivalence.p_holm), strong=True),
                Cell(_span(result.equivalence.ci90)),
                _bootstrap(result),
                Cell(fmt.number(100 * result.chance.accuracy)),
                Cell(_p(result.chance.p_reference), f"candidate {_p(result.chance.p_candidate)}"),
            )
            for result in report.results
        ),
    )


def _bootstrap(result: AnyTaskResult) -> Cell:
    if bootstrapped(result):
        return Cell(_span(result.bootstrap_ci))
    return Cell(fmt.NONE, f"fewer than {BOOTSTRAP_FLIPS} flips")


def _p(value: float) -> str:
    return "under 10⁻⁴" if value < 1e-4 else fmt.number(value, 2)


def _span(ci: tuple[float, float]) -> str:
    return fmt.estimate(0.0, ci, percent=True, decimals=DECIMALS).interval or fmt.NONE


def metrics_table(report: TasksReport) -> Table:
    """Every metric of every task; one of them decides."""
    return Table(
        caption="Every metric",
        columns=(
            Column("Task", "name"),
            Column("Metric", "text"),
            Column("Reference, %"),
            Column("Candidate, %"),
            Column("Difference, points"),
            Column("To wrong"),
            Column("To right"),
        ),
        rows=tuple(
            (
                Cell(visible(result.name)),
                Cell(metric_name(metric.metric), "decides" if metric.metric == result.metric else ""),
                Cell(score(metric.reference)),
                Cell(score(metric.candidate)),
                _difference(metric.difference),
                Cell(fmt.count(metric.harmful)),
                Cell(fmt.count(metric.helpful)),
            )
            for result in report.results
            for metric in result.metrics
        ),
    )


def _difference(found: Share | None) -> Cell:
    """In points, with its interval; reports of the first version have none of single metrics."""
    if found is None:
        return Cell(fmt.NONE)
    told = points(found)
    return Cell(told.value, told.interval or "")


@dataclass(frozen=True)
class Examples:
    """Flipped items of one task."""

    name: str
    table: Table
    note: str


def examples_of(result: AnyTaskResult) -> Examples:
    """Items of a task that flip."""
    stored = any(example.prompt is not None for example in result.examples)
    leads = any(example.lead is not None for example in result.examples)
    columns = [Column("Item", "name"), Column("Flip", "text")]
    if stored:
        columns += [Column("Prompt", "text"), Column("Right", "text")]
        columns += [Column("Reference", "text"), Column("Candidate", "text")]
    if leads:
        columns.append(Column(f"Lead, {result.lead_unit}"))
    note = "" if stored else "The items’ text is not in this report (store_text); ids and answers.jsonl tell which. "
    if leads:
        note += (
            "Lead: by how much the reference preferred its own answer to the candidate’s, by what "
            f"{result.metric} compares. A flip at a small lead was close anyway."
        )
    return Examples(
        name=visible(result.name),
        table=Table(
            caption=f"{visible(result.name)}: items that flip",
            columns=tuple(columns),
            rows=tuple(_example(example, stored=stored, leads=leads) for example in result.examples),
        ),
        note=note.strip(),
    )


def _example(example: Flipped, *, stored: bool, leads: bool) -> tuple[Cell, ...]:
    cells = [Cell(visible(example.item)), Cell("to wrong" if example.direction == "harmful" else "to right")]
    if stored:
        cells += [Cell(_text(text)) for text in (example.prompt, example.answer, example.reference, example.candidate)]
    if leads:
        cells.append(Cell(fmt.number(example.lead)))
    return tuple(cells)


def _text(text: str | None) -> str:
    if text is None:
        return fmt.NONE
    return visible(text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}…")


def predictions_table(report: TasksReport) -> Table:
    """The flip rate that KL made one expect beside the one that was found."""
    return Table(
        caption="Flip rate: predicted from KL, and found",
        columns=(
            Column("Task", "name"),
            Column("Predicted, %"),
            Column("Found, %"),
            Column("Within", "text"),
            Column("What it rests on", "text"),
        ),
        rows=tuple(
            (
                Cell(visible(result.name)),
                _predicted(result),
                Cell(fmt.percent(result.flips.rate.mean), strong=True),
                Cell(_within(result)),
                Cell(visible(result.prediction.sentence)),
            )
            for result in report.results
        ),
    )


def _predicted(result: AnyTaskResult) -> Cell:
    told = result.prediction
    if told.rate is None or told.interval is None:
        return Cell(fmt.NONE)
    text = fmt.estimate(told.rate, told.interval, percent=True)
    return Cell(text.value, text.interval or "")


def _within(result: AnyTaskResult) -> str:
    if result.prediction.interval is None:
        return fmt.NONE
    if result.outcome == "at_chance":
        return "at chance"
    low, high = result.prediction.interval
    return "yes" if low <= result.flips.rate.mean <= high else "no"


def power_table(report: TasksReport) -> Table:
    """The smallest difference that each task could show, before the run and after."""
    return Table(
        caption="What each task could show",
        columns=(
            Column("Task", "name"),
            Column("Items"),
            Column("Flip rate to plan with, %"),
            Column("Detectable before the run, points"),
            Column("At the flip rate found, points"),
        ),
        rows=tuple(
            (
                Cell(visible(result.name)),
                Cell(fmt.count(result.items)),
                Cell(fmt.number(100 * result.detectable.flip_rate), result.detectable.source),
                Cell(_points(result.detectable.difference)),
                Cell(_points(result.detectable.at_measured_rate)),
            )
            for result in report.results
        ),
    )


def _points(difference: float | None) -> str:
    return "none" if difference is None else detectable(difference)
