"""The report of tasks as blocks: is the candidate worse, what flips, what KL predicts, what could be shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from app.kinds.tasks.answers import (
    OUTCOMES,
    examples,
    metrics_table,
    points,
    predictions_table,
    results_table,
    score,
    significance_table,
)
from app.kinds.tasks.report import AnyTaskResult, Outcome, Share, TasksReport
from app.kinds.tasks.token_classes import which_answers
from app.models.tasks.power import level_told
from app.reports import format as fmt
from app.reports.blocks import Block, Chart, Figure, Figures, Note, NoteKind, Section, fold
from app.reports.charts.flips import Band, FlipDot, flips_chart
from app.reports.common import closing, headline, title, which_layers
from app.reports.untrusted import visible
from app.reports.verdict import heading as severity_of

_WORST_FIRST: Final[tuple[Outcome, ...]] = ("worse", "inconclusive", "at_chance", "better", "equivalent")
_TESTS_NOTE: Final = (
    "McNemar’s exact test compares harmful with helpful flips; Holm’s rule corrects it for the number of tasks. Two "
    "one-sided score tests claim equivalence."
)


def blocks(report: TasksReport) -> list[Block]:
    """What the report shows, the outcome of the tasks first."""
    flipped = examples(report)
    return [
        title(report, what="tasks report", heading=heading(report)),
        Section("answers", heading(report), _found(report)),
        Section("results", "Tasks", _results(report)),
        which_answers(report),
        *([Section("flipped", "Flipped items", flipped)] if flipped else []),
        Section("flips", "KL and flips", _flips(report)),
        headline(report, chart_title="Excess KL over the noise floor", sentence=left(report), nav="Distributions"),
        *closing(report),
    ]


def heading(report: TasksReport) -> str:
    """`Worse`, `Equivalent`, `Undecided`: the worst that is shown of any task, and how many were not scored."""
    worst = worst_outcome(report)
    if not report.unscored:
        return OUTCOMES[worst].capitalize()
    missing = f"{fmt.counted(len(report.unscored), 'task')} could not be scored"
    return f"{OUTCOMES['worse' if worst == 'worse' else 'inconclusive'].capitalize()}; {missing}"


def worst_outcome(report: TasksReport) -> Outcome:
    """The worst that is shown of any task."""
    outcomes = {result.outcome for result in report.results}
    return next((name for name in _WORST_FIRST if name in outcomes), "inconclusive")


def verdict(report: TasksReport) -> str:
    """One sentence over all tasks, and one over those that could not be scored."""
    lost = f"{', '.join(report.unscored)} could not be scored." if report.unscored else ""
    results = report.results
    return " ".join(filter(None, (_sentence(results[0]) if len(results) == 1 else _over_all(results), lost)))


def _sentence(result: AnyTaskResult) -> str:
    flips, margin = result.flips, f"{100 * result.equivalence.margin:.3g} points"
    moved = (
        f"{fmt.count(flips.harmful + flips.helpful)} of {fmt.count(result.items)} items flip, "
        f"{fmt.count(flips.harmful)} to wrong and {fmt.count(flips.helpful)} to right"
    )
    if result.outcome == "at_chance":
        return (
            f"{result.name}: at chance. The reference answers {score(result.reference.mean)} % correctly, which is not "
            f"shown to be better than guessing ({fmt.number(100 * result.chance.accuracy)} %). {moved}, which shows "
            "nothing about damage."
        )
    within = f", yet within {margin}" if result.equivalence.equivalent else ""
    found = {
        "worse": f"the candidate is worse{within}",
        "better": f"the candidate is better{within}",
        "equivalent": f"equivalent within {margin}",
        "inconclusive": f"no difference is shown, nor that it is within {margin}",
    }[result.outcome]
    return f"{result.name}: {found}. {points(result.difference)} points of accuracy (95 % interval); {moved}."


def _over_all(results: Sequence[AnyTaskResult]) -> str:
    by: dict[Outcome, list[str]] = {}
    for result in results:
        by.setdefault(result.outcome, []).append(result.name)
    at_chance = by.pop("at_chance", None)
    found = [f"{OUTCOMES[name]} on {', '.join(by[name])}" for name in OUTCOMES if name in by]
    said = [f"Against the reference the candidate is {'; '.join(found)}."] if found else []
    if at_chance:
        said.append(f"On {', '.join(at_chance)} the reference only guesses, so these tasks show nothing about damage.")
    return " ".join(said)


def _found(report: TasksReport) -> list[Block]:
    several = _asked(report) > 1
    return [
        Note(visible(report.verdict), kind="sentence", brief=True),
        Note(outcome(report), kind=_colour(report), brief=several),
        Figures(figures(report)),
        *([which_layers(report)] if worst_outcome(report) == "worse" else []),
    ]


def _asked(report: TasksReport) -> int:
    return len(report.results) + len(report.unscored)


def _colour(report: TasksReport) -> NoteKind:
    outcomes = {result.outcome for result in report.results}
    if "worse" in outcomes:
        return "bad"
    return "good" if outcomes <= {"equivalent", "better"} and not report.unscored else "alert"


def outcome(report: TasksReport) -> str:
    """How many tasks have which outcome."""
    found = [f"{count} {OUTCOMES[name]}" for name, count in _by_outcome(report).items()]
    found += [f"{visible(name)} could not be scored" for name in report.unscored]
    margin = fmt.number(100 * report.results[0].equivalence.margin, 2)
    return (
        f"Of {fmt.counted(_asked(report), 'task')}: {', '.join(found)}. "
        f"The margin of equivalence is ± {margin} points of accuracy."
    )


def _by_outcome(report: TasksReport) -> dict[Outcome, int]:
    counted = Counter(result.outcome for result in report.results)
    return {name: counted[name] for name in OUTCOMES if counted[name]}


def figures(report: TasksReport) -> tuple[Figure, ...]:
    """Of several tasks how many have which outcome; then the first task of the worst outcome."""
    worst = worst_outcome(report)
    of = next((result for result in report.results if result.outcome == worst), report.results[0])
    name, flips, rate = visible(of.name), of.flips, fmt.estimate(of.flips.rate.mean, of.flips.rate.ci, percent=True)
    items, difference = f"{name}, {fmt.count(of.items)} items", points(of.difference)
    moved = f"{fmt.count(flips.harmful)} to wrong, {fmt.count(flips.helpful)} to right"
    several = _asked(report) > 1
    beside = f"{items}; the reference {points(of.reference)}" if several else items
    return (
        *([_counted(report, worst)] if several else []),
        Figure("Difference", difference.value, "points of accuracy", difference.interval or "", f"{name}, paired"),
        Figure("Flips", rate.value, "% of items", rate.interval or "", f"{name}, {moved}"),
        *([] if several else [_right("Reference", of.reference, items)]),
        _right("Candidate", of.candidate, beside),
    )


def _right(who: str, share: Share, note: str) -> Figure:
    found = points(share)
    return Figure(who, found.value, "% right", found.interval or "", note)


def _counted(report: TasksReport, worst: Outcome) -> Figure:
    counts = _by_outcome(report)
    others = [f"{count} {OUTCOMES[name]}" for name, count in counts.items() if name != worst]
    others += [f"{len(report.unscored)} not scored"] if report.unscored else []
    value = f"{fmt.count(counts[worst])} of {fmt.count(_asked(report))}"
    return Figure("Outcome", value, f"tasks {OUTCOMES[worst]}", "", ", ".join(others))


def _results(report: TasksReport) -> list[Block]:
    note = (
        "Differences are candidate − reference; dashed is the margin of equivalence. Equal accuracies can hide many "
        "flips. Detectable: the smallest difference that McNemar’s exact test shows with 80 % power at the "
        f"{level_told(report.results[0].detectable.level)}."
    )
    return [
        results_table(report),
        Note(note),
        significance_table(report),
        Note(_TESTS_NOTE),
        *(
            Note(f"{visible(one.name)}: its {fmt.counted(one.passages, 'passage')} are tested, not its items.")
            for one in report.results
            if one.passages is not None
        ),
        *fold("Every metric", [metrics_table(report)]),
    ]


def _flips(report: TasksReport) -> list[Block]:
    chart = _chart(report)
    return [
        Note(left(report), kind="plain", brief=True),
        *([chart] if chart else []),
        predictions_table(report),
        Note("Predicted from earlier runs of other candidates on this service, before the answers of this job."),
    ]


def left(report: TasksReport) -> str:
    """The divergence beside which the answers are read."""
    kl = report.divergence.kl
    return (
        f"Over the text the candidate is {fmt.estimate(kl.mean, kl.ci)} nats per token from the reference "
        f"({severity_of(report)})."
    )


def _chart(report: TasksReport) -> Chart | None:
    kl, curve, band = report.divergence.kl.mean, report.curve, None
    dots = [FlipDot(visible(run.task), run.kl, run.rate, None, own=False) for run in report.seen]
    dots += [
        FlipDot(visible(result.name), kl, result.flips.rate.mean, result.flips.rate.ci, own=True)
        for result in report.results
        if kl and result.outcome != "at_chance"
    ]
    if curve is not None:
        what = f"95 % prediction interval for {fmt.count(curve.items)} items"
        band = Band(curve.kl, curve.rate, curve.low, curve.high, what)
    drawn = flips_chart(dots, band)
    unit = "filled: this job; rings: earlier runs; band: 95 % prediction"
    return None if drawn is None else Chart("Items that flip, against KL over the text", drawn, unit)
