"""What both models answered, as tables: accuracy, flips, tests, examples, predictions, detectable differences."""

from __future__ import annotations

from typing import Final

from app.kinds.tasks.report import (
    AnyTaskResult,
    Flipped,
    HarnessTaskResult,
    Outcome,
    Share,
    TasksReport,
)
from app.reports import format as fmt
from app.reports.blocks import Block, Cell, Column, Fold, Note, Table
from app.reports.charts.marks import Guide, axis, interval_strip
from app.reports.scales import LinearScale
from app.reports.untrusted import visible

OUTCOMES: Final[dict[Outcome, str]] = {
    "worse": "worse",
    "better": "better",
    "equivalent": "equivalent",
    "inconclusive": "undecided",
    "at_chance": "at chance",
}
DECIMALS: Final = 1
# What `asked` gives the cells of.
ASKED: Final = (
    Column("Items", priority=2),
    Column("Reference, %"),
    Column("Candidate, %"),
    Column("To wrong, to right"),
)
_METRICS: Final = {
    "acc_norm": "acc_norm (per character)",
    "acc_bytes": "acc_bytes (per byte)",
    "exact_match_flexible": "exact match, last number",
    "exact_match_strict": "exact match, after ####",
    "pass_at_1": "pass@1",
}
_MOST_TEXT: Final = 400
_MOST_ROWS: Final = 12  # that the short output of a terminal has room for


def metric_name(metric: str) -> str:
    """A metric of ours in words, one of the harness as the harness calls it."""
    return _METRICS.get(metric, visible(metric))


def score(share: float) -> str:
    """An accuracy or a difference in per cent with one decimal. A share of nearly all never reads as 100."""
    return fmt.percent(share) if 0.9995 <= share < 1 else _fixed(share, None).value


def points(share: Share) -> fmt.Estimate:
    """The same with its interval, whatever decimals that supports: the margin is a few points."""
    return fmt.Estimate(score(share.mean), _fixed(share.mean, share.ci).interval)


def _fixed(share: float, ci: fmt.Interval | None) -> fmt.Estimate:
    return fmt.estimate(share, ci, percent=True, decimals=DECIMALS)


def in_points(share: Share, *, strong: bool = False) -> Cell:
    """The same as a cell."""
    found = points(share)
    return Cell(found.value, found.interval or "", strong=strong)


def asked(items: int, reference: float, candidate: float, harmful: int, helpful: int) -> tuple[Cell, ...]:
    """Cells of the columns `ASKED`: `reference` and `candidate` are accuracies."""
    flips = f"{fmt.count(harmful)}, {fmt.count(helpful)}"
    return Cell(fmt.count(items)), Cell(score(reference)), Cell(score(candidate)), Cell(flips)


def p_cell(value: float | None, *, strong: bool = False) -> Cell:
    """A p-value that never reads as 0."""
    return Cell("under 10⁻⁴" if value is not None and value < 1e-4 else fmt.number(value, 2), strong=strong)


def results_table(report: TasksReport) -> Table:
    """Accuracy of both models and their difference, a row per task."""
    margin = report.results[0].equivalence.margin
    values = [0.0, margin, -margin]
    for result in report.results:
        values += [result.difference.mean, *result.difference.ci]
    room = 0.06 * (max(values) - min(values))
    scale = LinearScale(100 * (min(values) - room), 100 * (max(values) + room))
    return Table(
        caption="Accuracy of both models on the same items",
        columns=(
            Column("Task", "name"),
            Column("Metric", "text", priority=3),
            *ASKED,
            Column("Difference, points"),
            Column("Difference with 95 % interval", "chart"),
            Column("Detectable, points", priority=1),
            Column("Outcome", "text"),
        ),
        rows=tuple(_result(result, scale) for result in report.results),
        axis=axis(scale, "points of accuracy, candidate − reference"),
        style="stack strips",
        brief=len(report.results) <= _MOST_ROWS,
    )


def _result(result: AnyTaskResult, scale: LinearScale) -> tuple[Cell, ...]:
    difference, flips, name = result.difference, result.flips, visible(result.name)
    margin = 100 * result.equivalence.margin
    strip = interval_strip(
        f"{name}: {points(difference)} points",
        100 * difference.mean,
        (100 * difference.ci[0], 100 * difference.ci[1]),
        scale,
        [Guide(0.0, "base"), Guide(margin, "floor"), Guide(-margin, "floor")],
    )
    return (
        Cell(name),
        Cell(metric_name(result.metric), _definition(result)),
        *asked(result.items, result.reference.mean, result.candidate.mean, flips.harmful, flips.helpful),
        in_points(difference, strong=True),
        Cell(chart=strip),
        Cell(_detectable(result.detectable.at_measured_rate or result.detectable.difference)),
        Cell(OUTCOMES[result.outcome], strong=result.outcome == "worse"),
    )


def _definition(result: AnyTaskResult) -> str:
    """Whose prompts and scoring the task has, if they are not ours."""
    if not isinstance(result, HarnessTaskResult):
        return ""
    found = result.harness
    of = "" if found.task == result.name else f"{visible(found.task)} of "
    shots = fmt.counted(found.shots, "solved example") if found.shots else "no examples"
    return f"{of}lm-evaluation-harness {visible(found.version)}, {shots}"


def _detectable(difference: float | None) -> str:
    return "none" if difference is None else score(difference)


def significance_table(report: TasksReport) -> Table:
    """p-values, corrected and not, and intervals, a row per task."""
    return Table(
        caption="Tests",
        columns=(
            Column("Task", "name"),
            Column("McNemar, p", priority=2),
            Column("McNemar, Holm’s p"),
            Column("Equivalence, p", priority=2),
            Column("Equivalence, Holm’s p"),
            Column("90 % interval, points", priority=1),
            Column("Guessing, %", priority=1),
            Column("Better than guessing, p"),
        ),
        rows=tuple(
            (
                Cell(visible(result.name)),
                p_cell(result.mcnemar.p),
                p_cell(result.mcnemar.p_holm, strong=True),
                p_cell(result.equivalence.p),
                p_cell(result.equivalence.p_holm, strong=True),
                Cell(_span(result.equivalence.ci90)),
                Cell(fmt.number(100 * result.chance.accuracy)),
                Cell(p_cell(result.chance.p_reference).text, f"candidate {p_cell(result.chance.p_candidate).text}"),
            )
            for result in report.results
        ),
    )


def _span(ci: tuple[float, float]) -> str:
    return _fixed(0.0, ci).interval or fmt.NONE


def metrics_table(report: TasksReport) -> Table:
    """Every metric of every task; one of them decides."""
    return Table(
        caption="Every metric",
        columns=(Column("Task", "name"), Column("Metric", "text"), *ASKED, Column("Difference, points")),
        rows=tuple(
            (
                Cell(visible(result.name)),
                Cell(metric_name(metric.metric), "decides" if metric.metric == result.metric else ""),
                *asked(result.items, metric.reference, metric.candidate, metric.harmful, metric.helpful),
                in_points(metric.difference),
            )
            for result in report.results
            for metric in result.metrics
        ),
    )


def examples(report: TasksReport) -> list[Block]:
    """Items that flip: those of the first task, and folds with those of the others."""
    found = [(visible(result.name), _examples(result)) for result in report.results if result.examples]
    return [*found[0][1], *(Fold(name, blocks) for name, blocks in found[1:])] if found else []


def _examples(result: AnyTaskResult) -> list[Block]:
    stored = any(example.prompt is not None for example in result.examples)
    columns = [Column("Item", "name"), Column("Flip", "text")]
    columns += [Column(name, "text") for name in ("Prompt", "Right", "Reference", "Candidate")] if stored else []
    rows = tuple(_example(example, stored=stored) for example in result.examples)
    table = Table(f"{visible(result.name)}: items that flip", tuple(columns), rows)
    absent = Note("The items’ text is not in this report: --store-text keeps it. answers.jsonl has the items’ ids.")
    return [table] if stored else [table, absent]


def _example(example: Flipped, *, stored: bool) -> tuple[Cell, ...]:
    cells = [Cell(visible(example.item)), Cell("to wrong" if example.direction == "harmful" else "to right")]
    if stored:
        cells += [Cell(_text(text)) for text in (example.prompt, example.answer, example.reference, example.candidate)]
    return tuple(cells)


def _text(text: str | None) -> str:
    if text is None:
        return fmt.NONE
    return visible(text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}…")


def predictions_table(report: TasksReport) -> Table:
    """The flip rate that KL predicts beside the measured one."""
    return Table(
        caption="Flip rate: predicted from KL, and measured",
        columns=(
            Column("Task", "name"),
            Column("Predicted, %"),
            Column("Measured, %"),
            Column("Within", "text"),
            Column("What the prediction is from", "text"),
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
        style="stack why",
    )


def _predicted(result: AnyTaskResult) -> Cell:
    found = fmt.estimate(result.prediction.rate, result.prediction.interval, percent=True)
    return Cell(found.value, found.interval or "")


def _within(result: AnyTaskResult) -> str:
    if result.prediction.interval is None:
        return fmt.NONE
    if result.outcome == "at_chance":
        return "at chance"
    low, high = result.prediction.interval
    return "yes" if low <= result.flips.rate.mean <= high else "no"
