"""What a tasks job found: is the candidate worse, what flips, what KL made one expect, what could be shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from app.contracts.tasks_report import (
    BOOTSTRAP_FLIPS,
    AnyTaskResult,
    Flipped,
    HarnessTaskResult,
    Outcome,
    Share,
    TasksReport,
)
from app.models.tasks.power import level_told
from app.web import format as fmt
from app.web.charts import Guide, axis, interval_strip, mirrored_bars
from app.web.charts_flips import Band, FlipDot, flips_chart
from app.web.scales import LinearScale
from app.web.sections.numbers import Figure
from app.web.tables import Cell, Column, Table
from app.web.untrusted import visible

OUTCOMES: dict[Outcome, str] = {
    "worse": "worse",
    "better": "better",
    "equivalent": "equivalent",
    "inconclusive": "undecided",
    "at_chance": "at chance",
}
_WORST_FIRST: Final[tuple[Outcome, ...]] = ("worse", "inconclusive", "at_chance", "better", "equivalent")
_METRICS = {
    "acc": "acc",
    "acc_norm": "acc_norm (a character)",
    "acc_bytes": "acc_bytes (a byte)",
    "exact_match_flexible": "exact match, last number",
    "exact_match_strict": "exact match, after ####",
    "pass_at_1": "pass@1",
}
DECIMALS = 1
_MOST_TEXT = 400


@dataclass(frozen=True)
class Examples:
    """Flipped items of one task."""

    name: str
    table: Table
    note: str


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
        good=outcomes <= {"equivalent", "better"},
        bad="worse" in outcomes,
        sentence=visible(report.verdict),
        outcome=outcome(report),
        figures=_figures(report),
        results=_results(report),
        results_note=_results_note(report),
        tests=_tests(report),
        tests_note=_tests_note(report),
        metrics=_metrics(report),
        examples=tuple(_examples(result) for result in report.results if result.examples),
        chart=_chart(report),
        predictions=_predictions(report),
        prediction_note=(
            "Learned from this service’s own earlier runs of other candidates, before the answers of this job were "
            "looked at. The interval is for a run of as many items."
        ),
        power=_power(report),
        power_note=(
            "Smallest true difference in accuracy that McNemar’s exact test shows with 80 % power, by the flip rate "
            f"that was assumed or predicted before the run, at the {level_told(report.results[0].detectable.level)}."
        ),
    )


def metric_name(metric: str) -> str:
    """In words where it is one of ours, else as the harness calls it."""
    return _METRICS.get(metric, visible(metric))


def heading(report: TasksReport) -> str:
    """`Worse`, `Equivalent`, `Undecided` …: the worst that is shown of any task."""
    return OUTCOMES[_worst(report)].capitalize()


def _worst(report: TasksReport) -> Outcome:
    outcomes = {result.outcome for result in report.results}
    return next((name for name in _WORST_FIRST if name in outcomes), "inconclusive")


def outcome(report: TasksReport) -> str:
    """How many tasks came out how."""
    told = ", ".join(f"{count} {OUTCOMES[name]}" for name, count in _counts(report).items())
    margin = fmt.number(100 * report.results[0].equivalence.margin, 2)
    many = len(report.results)
    return (
        f"Of {many} task{'' if many == 1 else 's'}: {told}. The margin of equivalence is ± {margin} points of accuracy."
    )


def _counts(report: TasksReport) -> dict[Outcome, int]:
    """Tasks by outcome, in the order of `OUTCOMES`, as far as there are any."""
    counted = Counter(result.outcome for result in report.results)
    return {name: counted[name] for name in OUTCOMES if counted[name]}


def points(share: Share) -> fmt.Estimate:
    """A difference of shares in points, with one decimal: it is held against a margin of a few points, for which the
    digits that its interval supports are often too coarse."""
    return fmt.estimate(share.mean, share.ci, percent=True, decimals=DECIMALS)


def score(share: float) -> str:
    """An accuracy in per cent, with the decimals of a difference, so that the two scores give it; a share of nearly all
    never reads as 100."""
    return fmt.percent(share) if 0.9995 <= share < 1 else f"{100 * share:.{DECIMALS}f}"


def detectable(difference: float) -> str:
    """A difference that could be shown, in points."""
    return fmt.estimate(difference, None, percent=True, decimals=DECIMALS).value


def left(report: TasksReport) -> str:
    """The divergence that the answers stand beside."""
    kl = report.divergence.kl
    return (
        f"Over the text the candidate is {fmt.estimate(kl.mean, kl.ci)} nats a token from the reference "
        f"({report.severity})."
    )


def _figures(report: TasksReport) -> tuple[Figure, ...]:
    """Of several tasks how many came out how, then of the first one of the worst outcome; each figure names it."""
    worst = _worst(report)
    of = next((result for result in report.results if result.outcome == worst), report.results[0])
    difference, rate = points(of.difference), fmt.estimate(of.flips.rate.mean, of.flips.rate.ci, percent=True)
    name, several = visible(of.name), len(report.results) > 1
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
    counts = _counts(report)
    others = ", ".join(f"{count} {OUTCOMES[name]}" for name, count in counts.items() if name != worst)
    value = f"{fmt.count(counts[worst])} of {fmt.count(len(report.results))}"
    return Figure("Outcome", value, f"tasks {OUTCOMES[worst]}", "", others)


def _results(report: TasksReport) -> Table:
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
        Cell(name, f"{metric_name(result.metric)}{_definition(result)}"),
        Cell(fmt.count(result.items)),
        Cell(score(result.reference.mean)),
        Cell(score(result.candidate.mean)),
        Cell(difference.value, difference.interval or "", strong=True),
        Cell(chart=interval_strip(f"{name}: {difference} points", 100 * result.difference.mean, ci, scale, guides)),
        Cell(f"{fmt.count(flips.harmful)}, {fmt.count(flips.helpful)}"),
        Cell(chart=bars),
        Cell(OUTCOMES[result.outcome], strong=result.outcome == "worse"),
    )


def _definition(result: AnyTaskResult) -> str:
    """Whose prompts and scoring they are, where they are not ours."""
    if not isinstance(result, HarnessTaskResult):
        return ""
    told, shots = result.harness, result.harness.shots
    whose = "" if told.task == result.name else f"{visible(told.task)} of "
    examples = f"{shots} solved example{'' if shots == 1 else 's'}" if shots else "no examples"
    return f"; {whose}lm-evaluation-harness {visible(told.version)}, {examples}"


def _results_note(report: TasksReport) -> str:
    margin = fmt.number(100 * report.results[0].equivalence.margin, 2)
    return (
        f"Candidate − reference, so damage is negative; dashed is the margin of ± {margin} points. Flips: to wrong on "
        "the left, to right on the right. Equal accuracies can hide many of either."
    )


def _tests(report: TasksReport) -> Table:
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


def _tests_note(report: TasksReport) -> str:
    note = (
        "McNemar’s exact test looks at flips alone: would harmful and helpful ones be as unequal by chance? Holm and "
        "Benjamini–Hochberg correct it for the number of tasks. Equivalence is claimed by two one-sided score tests, "
        "not by a difference that failed to show."
    )
    if all(_bootstrapped(result) for result in report.results):
        return note
    return (
        f"{note} The bootstrap is left out where fewer than {BOOTSTRAP_FLIPS} items flip: from so few it often misses "
        "the true difference. The score interval, beside the difference, holds there too."
    )


def _bootstrapped(result: AnyTaskResult) -> bool:
    return result.flips.harmful + result.flips.helpful >= BOOTSTRAP_FLIPS


def _bootstrap(result: AnyTaskResult) -> Cell:
    if _bootstrapped(result):
        return Cell(_span(result.bootstrap_ci))
    return Cell(fmt.NONE, f"fewer than {BOOTSTRAP_FLIPS} flips")


def _p(value: float) -> str:
    return "under 10⁻⁴" if value < 1e-4 else fmt.number(value, 2)


def _span(ci: tuple[float, float]) -> str:
    return fmt.estimate(0.0, ci, percent=True, decimals=DECIMALS).interval or fmt.NONE


def _metrics(report: TasksReport) -> Table:
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


def _examples(result: AnyTaskResult) -> Examples:
    stored = any(example.prompt is not None for example in result.examples)
    leads = any(example.lead is not None for example in result.examples)
    columns = [Column("Item", "name"), Column("Flip", "text")]
    if stored:
        columns += [Column("Prompt", "text"), Column("Right", "text")]
        columns += [Column("Reference", "text"), Column("Candidate", "text")]
    if leads:
        columns.append(Column(f"Lead, {result.lead_unit or 'nats'}"))
    note = "" if stored else "The items’ text is not in this report (store_text); ids and answers.jsonl tell which. "
    if leads:
        note += (
            "Lead: by how much the reference preferred its own answer to the candidate’s, by what "
            f"{result.metric} compares. A flip at a small lead was close anyway."
            if result.lead_unit or result.metric == "acc"
            else "Lead: by how much likelier the reference’s own answer was than the candidate’s, in the reference, as "
            f"a whole. {result.metric} divides by the length of an answer, so the lead of a longer one may be below 0."
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


def _predictions(report: TasksReport) -> Table:
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


def _power(report: TasksReport) -> Table:
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
