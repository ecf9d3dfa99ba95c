"""What a tasks job found, in words."""

from __future__ import annotations

from collections import Counter
from typing import Final

from app.kinds.tasks.report import (
    BOOTSTRAP_FLIPS,
    AnyTaskResult,
    HarnessTaskResult,
    Outcome,
    Share,
    TasksReport,
)
from app.web import format as fmt
from app.web.sections.verdict import heading as severity_of
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


def metric_name(metric: str) -> str:
    """In words where it is one of ours, else as the harness calls it."""
    return _METRICS.get(metric, visible(metric))


def heading(report: TasksReport) -> str:
    """`Worse`, `Equivalent`, `Undecided` …: the worst that is shown of any task; where one could not be scored, that is
    told, and nothing better than undecided."""
    worst = worst_outcome(report)
    if not report.unscored:
        return OUTCOMES[worst].capitalize()
    missing = f"{fmt.counted(len(report.unscored), 'task')} could not be scored"
    return f"{OUTCOMES['worse' if worst == 'worse' else 'inconclusive'].capitalize()}; {missing}"


def worst_outcome(report: TasksReport) -> Outcome:
    """The worst that is shown of any task."""
    outcomes = {result.outcome for result in report.results}
    return next((name for name in _WORST_FIRST if name in outcomes), "inconclusive")


def outcome(report: TasksReport) -> str:
    """How many tasks came out how."""
    told = ", ".join(f"{count} {OUTCOMES[name]}" for name, count in by_outcome(report).items())
    margin = fmt.number(100 * report.results[0].equivalence.margin, 2)
    many = len(report.results) + len(report.unscored)
    told += "".join(f", {visible(name)} could not be scored" for name in report.unscored)
    return (
        f"Of {many} task{'' if many == 1 else 's'}: {told}. The margin of equivalence is ± {margin} points of accuracy."
    )


def by_outcome(report: TasksReport) -> dict[Outcome, int]:
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
        f"({severity_of(report)})."
    )


def definition(result: AnyTaskResult) -> str:
    """Whose prompts and scoring they are, where they are not ours."""
    if not isinstance(result, HarnessTaskResult):
        return ""
    told, shots = result.harness, result.harness.shots
    whose = "" if told.task == result.name else f"{visible(told.task)} of "
    examples = f"{shots} solved example{'' if shots == 1 else 's'}" if shots else "no examples"
    return f"; {whose}lm-evaluation-harness {visible(told.version)}, {examples}"


def results_note(report: TasksReport) -> str:
    """How to read the table of results."""
    margin = fmt.number(100 * report.results[0].equivalence.margin, 2)
    return (
        f"Candidate − reference, so damage is negative; dashed is the margin of ± {margin} points. Flips: to wrong on "
        "the left, to right on the right. Equal accuracies can hide many of either."
    )


def tests_note(report: TasksReport) -> str:
    """How to read the table of tests."""
    note = (
        "McNemar’s exact test looks at flips alone: would harmful and helpful ones be as unequal by chance? Holm and "
        "Benjamini–Hochberg correct it for the number of tasks. Equivalence is claimed by two one-sided score tests, "
        "not by a difference that failed to show."
    )
    if all(bootstrapped(result) for result in report.results):
        return note
    return (
        f"{note} The bootstrap is left out where fewer than {BOOTSTRAP_FLIPS} items flip: from so few it often misses "
        "the true difference. The score interval, beside the difference, holds there too."
    )


def bootstrapped(result: AnyTaskResult) -> bool:
    """Whether enough items flip for a bootstrap to hold."""
    return result.flips.harmful + result.flips.helpful >= BOOTSTRAP_FLIPS
