"""Which items flip, by the token classes of their answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from app.kinds.tasks.report import AnyTaskResult, ClassOutcome, ItemClass, ItemClasses, Share, TasksReport
from app.models.tasks.power import LEVEL
from app.reports.blocks import Cell, Column, Fact, Table
from app.web import format as fmt
from app.web.sections.classes import lowered, p_value
from app.web.sections.estimates import estimate_cell
from app.web.sections.tasks_words import points, score
from app.web.untrusted import visible

_OUTCOMES: Final[dict[ClassOutcome, str]] = {
    "worse": "worse",
    "better": "better",
    "not_shown": "not shown",
    "at_chance": "at chance",
    "too_few": "too few items",
    "every_item": "every item",
}
_NONE: Final = "none"
# So many statements stand in the sentence; the tables have all.
_MOST_SAID: Final = 3


@dataclass(frozen=True)
class TaskClasses:
    """Of one task: what was looked at, its items by class, and its right choices' tokens by class. A table without rows
    is not shown."""

    name: str
    note: str
    items: Table
    tokens: Table


@dataclass(frozen=True)
class AnswersByClass:
    """A sentence over all tasks, and of each what it rests on."""

    sentence: str
    tasks: tuple[TaskClasses, ...]
    note: str
    multiplicity: str
    definitions: tuple[Fact, ...]


def answers_by_class(report: TasksReport) -> AnswersByClass:
    """The view of a report."""
    definitions = {
        one.title: Fact(visible(one.title), visible(one.definition))
        for result in report.results
        for one in result.token_classes.classes
        if one.name != _NONE
    }
    return AnswersByClass(
        sentence=class_sentence(report),
        tasks=tuple(_task(result, result.token_classes) for result in report.results),
        note=(
            "An answer may hold tokens of several kinds, so rows overlap. A kind’s share of the flips is to be held "
            "against its share of the items, how often its items flip against how often all others of the task do. "
            "McNemar’s exact test asks whether harmful and helpful flips of the kind are equally many, and decides "
            "worse and better; Fisher’s exact test, whether items of the kind flip as often as the others."
        ),
        multiplicity=visible(report.class_multiplicity),
        definitions=tuple(definitions.values()),
    )


def class_sentence(report: TasksReport) -> str:
    """Which kinds of answers flip more or less often than the others, beyond chance."""
    rows = [(result, one) for result in report.results for one in result.token_classes.classes]
    judged = [(result, one) for result, one in rows if one.fisher_p_holm is not None and one.outcome != "at_chance"]
    if not judged:
        if any(one.fisher_p_holm is not None for _, one in rows):
            return (
                "Whether some kinds of answers flip more cannot be told: where items are enough, answers are at chance."
            )
        return "Whether some kinds of answers flip more cannot be told: no kind has enough items beside others."
    sure = [(p, result, one) for result, one in judged if (p := one.fisher_p_holm) is not None and p < LEVEL]
    if not sure:
        return "No kind of answer is shown to flip more or less often than the others, by the kinds of its tokens."
    sure.sort(key=lambda found: found[0])
    said = " ".join(_said(result, one) for _, result, one in sure[:_MOST_SAID])
    more = len(sure) - _MOST_SAID
    return said if more <= 0 else f"{said} So {'does' if more == 1 else 'do'} {more} more, by the table."


def _said(result: AnyTaskResult, one: ItemClass) -> str:
    what = "question" if result.token_classes.where == "question" else "answer"
    which = "are of no kind" if one.name == _NONE else f"hold {visible(lowered(one.title))}"
    others = one.rate_others.mean if one.rate_others is not None else 0.0
    more = "more" if one.rate.mean > others else "less"
    return (
        f"On {visible(result.name)} items whose {what}s {which} flip {more} often than the others: "
        f"{_rate(one.rate)} against {_rate(one.rate_others)} ({p_value(one.fisher_p_holm)}, Holm)."
    )


def _rate(share: Share | None) -> str:
    """A flip rate in per cent, with its interval."""
    if share is None:
        return fmt.NONE
    found = points(share)
    return " ".join(filter(None, (f"{found.value} %", found.interval)))


def _task(result: AnyTaskResult, found: ItemClasses) -> TaskClasses:
    name = visible(result.name)
    absent = f" In no item: {', '.join(visible(lowered(title)) for title in found.absent)}." if found.absent else ""
    return TaskClasses(
        name=name,
        note=f"{visible(found.note)}{absent}",
        items=Table(
            caption=f"{name}: items by the kinds of tokens {_where(found)}",
            columns=(
                Column("Kind", "name"),
                Column("Items"),
                Column("Reference, %"),
                Column("Candidate, %"),
                Column("Difference, points"),
                Column("To wrong, to right"),
                Column("Share of flips, %"),
                Column("Flips, %"),
                Column("Of others, %"),
                Column("McNemar, Holm’s p"),
                Column("Fisher, Holm’s p"),
                Column("Outcome", "text"),
            ),
            rows=tuple(_item_row(one) for one in found.classes),
        ),
        tokens=Table(
            caption=f"{name}: change of the right choices’ log-probability",
            columns=(
                Column("Kind of token", "name"),
                Column("Tokens"),
                Column("Items"),
                Column("Candidate − reference, nats a token"),
            ),
            rows=tuple(_token_rows(found)),
        ),
    )


def _where(found: ItemClasses) -> str:
    return "in the question" if found.where == "question" else "in the right answer"


def _item_row(one: ItemClass) -> tuple[Cell, ...]:
    difference, rate = points(one.difference), points(one.rate)
    share = fmt.NONE if one.share_of_flips is None else score(one.share_of_flips)
    return (
        Cell(visible(one.title)),
        Cell(fmt.count(one.items), f"{score(one.share)} %"),
        Cell(score(one.reference.mean)),
        Cell(score(one.candidate.mean)),
        Cell(difference.value, difference.interval or "", strong=True),
        Cell(f"{fmt.count(one.harmful)}, {fmt.count(one.helpful)}"),
        Cell(share),
        Cell(rate.value, rate.interval or ""),
        Cell(fmt.NONE if one.rate_others is None else score(one.rate_others.mean)),
        _p(one.mcnemar_p_holm),
        _p(one.fisher_p_holm),
        Cell(_OUTCOMES[one.outcome], strong=one.outcome == "worse"),
    )


def _p(adjusted: float | None) -> Cell:
    if adjusted is None:
        return Cell(fmt.NONE)
    return Cell("under 10⁻⁴" if adjusted < 1e-4 else fmt.number(adjusted, 2), strong=adjusted < LEVEL)


def _token_rows(found: ItemClasses) -> Iterator[tuple[Cell, ...]]:
    for one in found.tokens:
        cell = estimate_cell(one.change)
        note = cell.note if one.change.ci is not None else "no interval: in one item"
        yield Cell(visible(one.title)), Cell(fmt.count(one.tokens)), Cell(fmt.count(one.items)), Cell(cell.text, note)
