"""The tables of docs/results/tasks.md, from tests/bench/tasks.csv.

What each task's answers show, what it could have shown and was expected to, and a line for each task that says nothing
of damage, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from tests.bench.rows import Row, by_case

RESULTS: Final = Path(__file__).with_name("tasks.csv")
CANDIDATES: Final = {"rtn_4": "4 bits", "rtn_3": "3 bits"}
TASKS: Final = {
    "hellaswag": "HellaSwag",
    "arc-challenge": "ARC-Challenge",
    "gsm8k": "GSM8K",
    "humaneval": "HumanEval",
}
OUTCOMES: Final = {
    "worse": "worse",
    "better": "better",
    "equivalent": "equivalent",
    "inconclusive": "undecided",
    "at_chance": "at chance",
}
STATUSES: Final = {"seen": "", "few": ", from few runs", "outside": ", outside what was seen"}
Of = Mapping[str, float]


def section(rows: Iterable[Row]) -> str:
    """The lines of the section. KeyError where a number is missing."""
    found = by_case(rows)
    measured = [
        (candidate, task, found[f"{candidate}_{task}"])
        for candidate in CANDIDATES
        for task in TASKS
        if f"{candidate}_{task}" in found
    ]
    asked = [one for one in measured if "items" in one[2]]
    lines = [
        *_files(found),
        "",
        "| candidate | task | items | right of the reference, % | of the candidate, % | difference, points "
        "| to wrong, to right | McNemar’s p, by Holm | within the margin: p, by Holm | |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(_answers(*one) for one in asked),
        "",
        "| candidate | task | before the run: could show, points | flipped, % | could show at that rate, points "
        "| expected from KL, % | KL at the answers, nats per token | seconds |",
        "|---|---|---|---|---|---|---|---|",
        *(_before(*one) for one in asked),
        "",
        *_remarks(found, measured),
    ]
    return "\n".join(lines)


def _files(found: Mapping[str, Of]) -> Iterator[str]:
    yield "| file | items that are read | its own answers, right |"
    yield "|---|---|---|"
    for task, name in TASKS.items():
        if f"files_{task}" in found:
            of = found[f"files_{task}"]
            right = f"{of['own_answers_right']:.0f}" if "own_answers_right" in of else "–"
            yield f"| {name} | {of['items']:.0f} | {right} |"


def _answers(candidate: str, task: str, of: Of) -> str:
    cells = [
        CANDIDATES[candidate],
        TASKS[task],
        f"{of['items']:.0f}",
        f"{100 * of['reference_accuracy']:.1f}",
        f"{100 * of['candidate_accuracy']:.1f}",
        f"{_points(of['difference'])} [{_points(of['difference_low'])}, {_points(of['difference_high'])}]",
        f"{of['harmful']:.0f}, {of['helpful']:.0f}",
        f"{_p(of['mcnemar_p'])}, {_p(of['mcnemar_p_holm'])}",
        f"{_p(of['equivalence_p'])}, {_p(of['equivalence_p_holm'])}",
        _outcome(of),
    ]
    return f"| {' | '.join(cells)} |"


def _before(candidate: str, task: str, of: Of) -> str:
    before, after = (
        f"{100 * of[name]:.1f}" if name in of else "nothing" for name in ("detectable", "detectable_at_flip_rate_found")
    )
    kl = f"{of['kl']:.3g} [{of['kl_low']:.3g}, {of['kl_high']:.3g}]" if "kl_low" in of else "–"
    cells = [
        CANDIDATES[candidate],
        TASKS[task],
        f"{before} at {100 * of['detectable_flip_rate']:.2g} % flips",
        f"{100 * of['flip_rate']:.1f}",
        after if of["flip_rate"] else "–",
        _expected(of),
        kl,
        f"{of['seconds']:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def _expected(of: Of) -> str:
    if "predicted_flip_rate" not in of:
        return "–"
    low, high = of["predicted_flip_rate_low"], of["predicted_flip_rate_high"]
    status = next(told for name, told in STATUSES.items() if f"prediction_{name}" in of)
    held = "" if low <= of["flip_rate"] <= high else "; **not held**"
    return f"{100 * of['predicted_flip_rate']:.0f} [{100 * low:.0f}, {100 * high:.0f}]{status}{held}"


def _outcome(of: Of) -> str:
    return next(told for name, told in OUTCOMES.items() if f"outcome_{name}" in of)


def _remarks(found: Mapping[str, Of], measured: Iterable[tuple[str, str, Of]]) -> Iterator[str]:
    for candidate, told in CANDIDATES.items():
        if candidate in found:
            of = found[candidate]
            kl = f"{of['kl']:.3g} nats per token [{of['kl_low']:.3g}, {of['kl_high']:.3g}]"
            yield f"- {told}: KL {kl} over the shipped text; the whole job took {of['seconds']:.0f} s."
    guessed: list[str] = []
    for candidate, task, of in measured:
        name = f"{TASKS[task]}, {CANDIDATES[candidate]}"
        for refused in (metric for metric in of if metric.startswith("refused_")):
            yield f"- {name}: not run, `{refused.removeprefix('refused_')}`."
        if "items" not in of:
            continue
        guess = f"guessing has {100 * of['chance_accuracy']:.1f} %" if of["chance_accuracy"] else "a guess has none"
        if of["at_chance"]:
            if TASKS[task] not in guessed:  # it is the same reference for every candidate
                guessed.append(TASKS[task])
                yield (
                    f"- {TASKS[task]}: the reference is at chance: {_right(of, 'reference')} are right, {guess} "
                    f"(p = {_p(of['chance_p_reference'])}). Flips here say nothing of damage."
                )
        elif of["candidate_at_chance"]:
            right = _right(of, "candidate")
            yield f"- {name}: the candidate is not shown to be better than guessing: {right} are right, {guess}."
        if "outcome_inconclusive" in of:
            most = 100 * max(abs(of["difference_low"]), abs(of["difference_high"]))
            yield f"- {name}: undecided: the interval allows a difference of {most:.1f} points."


def _right(of: Of, side: str) -> str:
    return f"{of[f'{side}_accuracy'] * of['items']:.0f} of {of['items']:.0f}"


def _points(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "−") if round(1000 * share) else "0.0"


def _p(value: float) -> str:
    return f"{value:.2g}" if value >= 1e-4 else "< 0.0001"
