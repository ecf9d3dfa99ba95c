"""Which answers flip: the items of each task by the token classes of their answers."""

from __future__ import annotations

from typing import Final

from app.kinds.tasks.answers import ASKED, asked, in_points, p_cell, points, score
from app.kinds.tasks.report import AnyTaskResult, ItemClass, Share, TasksReport
from app.models.tasks.power import LEVEL
from app.reports import format as fmt
from app.reports.blocks import Block, Cell, Column, Facts, Fold, Note, Section, Table, filled
from app.reports.classes import definitions, lowered, p_value
from app.reports.untrusted import visible

_NONE: Final = "none"
_MOST_NAMED: Final = 3  # in the sentence; the tables have all
_NOTE: Final = (
    "An answer may hold tokens of several classes, so rows overlap. Fisher’s exact test compares how often items of "
    "the class and all other items flip."
)


def which_answers(report: TasksReport) -> Section:
    """A sentence over all tasks, and the tables of each."""
    tables = [block for result in report.results for block in _task(result)]
    every = {one.title: one for result in report.results for one in result.token_classes.classes if one.name != _NONE}
    if every:
        tables.append(Note(_NOTE))
        tables += [Note(visible(report.class_multiplicity), "Correction")] if report.class_multiplicity else []
        tables.append(Facts(definitions(every.values()), style="facts wide"))
    return Section(
        "classes",
        "Which answers",
        (Note(class_sentence(report), kind="plain", brief=True), Fold("By the token classes of the answers", tables)),
    )


def class_sentence(report: TasksReport) -> str:
    """Which answers flip more or less often than the others, beyond chance."""
    judged = [
        (one.fisher_p_holm, result, one)
        for result in report.results
        for one in result.token_classes.classes
        if one.fisher_p_holm is not None
    ]
    above = [found for found in judged if found[1].outcome != "at_chance"]
    if not above:
        why = "answers with enough items are at chance" if judged else "no class has enough items to compare"
        return f"It is not known whether some answers flip more often: {why}."
    sure = sorted((found for found in above if found[0] < LEVEL), key=lambda found: found[0])
    if not sure:
        return "No class of answers is shown to flip more or less often than the others."
    more = len(sure) - _MOST_NAMED
    others = [f"The table has {more} more."] if more > 0 else []
    return " ".join([*(_named(result, one) for _, result, one in sure[:_MOST_NAMED]), *others])


def _named(result: AnyTaskResult, one: ItemClass) -> str:
    what = "question" if result.token_classes.where == "question" else "answer"
    which = "are of no class" if one.name == _NONE else f"hold {visible(lowered(one.title))}"
    more = "more" if one.rate_others is None or one.rate.mean > one.rate_others.mean else "less"
    return (
        f"On {visible(result.name)} items whose {what}s {which} flip {more} often than the others: "
        f"{_rate(one.rate)} against {_rate(one.rate_others)} ({p_value(one.fisher_p_holm)}, Holm)."
    )


def _rate(share: Share | None) -> str:
    if share is None:
        return fmt.NONE
    found = points(share)
    return f"{found.value} % {found.interval or ''}".rstrip()


def _task(result: AnyTaskResult) -> list[Block]:
    found, name = result.token_classes, visible(result.name)
    where = "question" if found.where == "question" else "right answer"
    absent = f" In no item: {', '.join(visible(lowered(title)) for title in found.absent)}." if found.absent else ""
    items = Table(
        caption=f"{name}: items by the tokens in the {where}",
        columns=(
            Column("Class", "name"),
            *ASKED,
            Column("Difference, points"),
            Column("Share of flips, %", priority=2),
            Column("Flips, %"),
            Column("Flips of others, %"),
            Column("Fisher, Holm’s p", priority=1),
        ),
        rows=tuple(map(_item_row, found.classes)),
    )
    return [*filled(items), Note(f"{visible(found.note)}{absent}", name)]


def _item_row(one: ItemClass) -> tuple[Cell, ...]:
    items, *others = asked(one.items, one.reference.mean, one.candidate.mean, one.harmful, one.helpful)
    return (
        Cell(visible(one.title)),
        Cell(items.text, f"{score(one.share)} %"),
        *others,
        in_points(one.difference, strong=True),
        Cell(fmt.NONE if one.share_of_flips is None else score(one.share_of_flips)),
        in_points(one.rate),
        Cell(fmt.NONE if one.rate_others is None else score(one.rate_others.mean)),
        p_cell(one.fisher_p_holm, strong=one.fisher_p_holm is not None and one.fisher_p_holm < LEVEL),
    )
