"""Which kinds of token break the path first, and along which the models are apart once it is broken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from app.kinds.trajectory.report import Cell as Entry
from app.kinds.trajectory.report import (
    ClassDistance,
    ClassDivergence,
    ClassesOfCell,
    ClassFirstDivergence,
    ClassKl,
    TrajectoryReport,
)
from app.reports.blocks import Cell, Column, Fact, Table
from app.web import format as fmt
from app.web.charts import axis, change_strip
from app.web.scales import LogScale
from app.web.sections.classes import LEVEL, NONE, listed, lowered, p_value
from app.web.sections.trajectory_words import LETTERS, first_cells, label, mean_cell, row_name, shaping_name
from app.web.untrusted import visible

_NONE: Final = "none"
# The places of four texts can be dealt in 24 ways at most, so that no two-sided p value is below 2/24.
_FEWEST_PARTED: Final = 5


@dataclass(frozen=True)
class Kinds:
    """The section: what is shown, the first decoder's tables, those of the other decoders, and what to know of them."""

    sentences: tuple[str, ...]
    breaking: Table
    kl: Table
    others: tuple[Table, ...]
    rule: str
    multiplicity: str
    absent: str
    definitions: tuple[Fact, ...]


def kinds(report: TrajectoryReport) -> Kinds:
    """The section of a report."""
    found, first = report.token_classes, first_cells(report)
    return Kinds(
        sentences=sentences(report),
        breaking=_breaking(report, first),
        kl=_kl(report, first),
        others=_others(report),
        rule=visible(found.rule),
        multiplicity=visible(found.multiplicity),
        absent=f"Not in these texts: {', '.join(map(visible, found.absent))}." if found.absent else "",
        definitions=tuple(Fact(visible(one.title), visible(one.definition)) for one in found.classes),
    )


def sentences(report: TrajectoryReport) -> tuple[str, ...]:
    """What is shown of the first decoder of the first candidate: where texts part, and where KL is larger."""
    of = first_cells(report)[0].by_class
    return (_parting_sentence(report, of), _kl_sentence(report, of))


def title(report: TrajectoryReport, name: str) -> str:
    """A class's title."""
    if name == _NONE:
        return NONE
    return visible(next((one.title for one in report.token_classes.classes if one.name == name), name))


def by_share(of: ClassesOfCell) -> list[ClassDivergence]:
    """Classes of first divergences, the most frequent first, `none` last."""
    return sorted(
        of.first_divergence.classes, key=lambda one: (one.name == _NONE, -(one.share.mean or 0.0), -one.tokens)
    )


def kl_rows(of: ClassesOfCell) -> list[tuple[str, ClassKl | None, ClassKl | None]]:
    """Name, along the reference's texts, along the candidate's own; the largest on its own first, `none` last."""
    ours, theirs = ({one.name: one for one in side} for side in (of.reference_text, of.candidate_text))
    names = list(dict.fromkeys([*theirs, *ours]))

    def order(name: str) -> tuple[bool, float]:
        one = theirs.get(name)
        return name == _NONE, -((one.kl.mean or 0.0) if one is not None else 0.0)

    return [(name, ours.get(name), theirs.get(name)) for name in sorted(names, key=order)]


def _parting_sentence(report: TrajectoryReport, of: ClassesOfCell) -> str:
    who = f", candidate {LETTERS[0]}" if len(report.candidates) > 1 else ""
    where = f"With {label(report.decoders[0].name)}{who},"
    found = of.first_divergence
    if not found.parted:
        return f"{where} no texts part at a token of the reference’s.{_after_the_end(found)}"
    texts = f"texts after {fmt.count(found.parted)} of {fmt.counted(report.prompts, 'prompt')}"
    if found.parted < _FEWEST_PARTED:
        told = "too few to tell one kind of token from another"
        return f"{where} {texts} part at a token of the reference’s, {told}.{_after_the_end(found)}"
    sure = [
        (one.share.mean - one.share_by_place, one.name)
        for one in found.classes
        if one.p_value is not None
        and one.p_value < LEVEL
        and one.share.mean is not None
        and one.share_by_place is not None
    ]
    parts = []
    for opening, sign in (("more often", 1), ("less often", -1)):
        group = [lowered(title(report, name)) for gap, name in sorted(sure, reverse=sign > 0) if gap * sign > 0]
        parts += [f"{opening} at {listed(group)}"] if group else []
    shown = (
        f"{', '.join(parts)}, than the places alone would have it"
        if parts
        else "not shown to do so more or less often at one kind of token than at another, all kinds taken together"
    )
    return f"{where} {texts} part at a token of the reference’s, {shown}.{_after_the_end(found)}"


def _after_the_end(found: ClassFirstDivergence) -> str:
    if not found.after_the_end:
        return ""
    return f" After {fmt.counted(found.after_the_end, 'prompt')} they part where the reference’s text has ended."


def _kl_sentence(report: TrajectoryReport, of: ClassesOfCell) -> str:
    told = []
    several = len(report.candidates) > 1
    kl = f"KL of candidate {LETTERS[0]}" if several else "KL"
    own = f"candidate {LETTERS[0]}’s own text" if several else "the candidate’s own text"
    for side, text, what in ((of.reference_text, "the reference’s text", kl), (of.candidate_text, own, "KL")):
        kinds_of = [one for one in side if one.name != _NONE]
        if kinds_of and all(one.p_value is None for one in kinds_of):
            told.append(
                f"On {text} no kind of token can be judged: it, or all others, stands after one prompt at most."
            )
            continue
        parts = []
        for opening, sign in (("larger", 1), ("smaller", -1)):
            group = [
                lowered(title(report, one.name))
                for one in side
                if one.p_value is not None
                and one.p_value < LEVEL
                and one.difference is not None
                and (one.difference.mean or 0.0) * sign > 0
            ]
            parts += [f"{opening} at {listed(group)}"] if group else []
        shown = f"{', '.join(parts)}, each against all other tokens" if parts else "not shown to differ between kinds"
        told.append(f"On {text} {what} is {shown}.")
    return " ".join(told)


def named(report: TrajectoryReport, cell: Entry, name: str) -> str:
    """A class's title, behind the candidate's letter where there are several."""
    told = title(report, name)
    return f"{LETTERS[cell.candidate]} · {told}" if len(report.candidates) > 1 else told


def _breaking(report: TrajectoryReport, cells: Sequence[Entry]) -> Table:
    rows = [
        (
            Cell(named(report, cell, one.name)),
            replace(mean_cell(one.share, percent=True), strong=True),
            mean_cell(one.share_of_tokens, percent=True),
            Cell(fmt.NONE if one.share_by_place is None else fmt.percent(one.share_by_place, 2)),
            Cell(told_p(one.p_value)),
            mean_cell(one.hazard, percent=True),
            Cell(fmt.count(one.divergences), f"of {fmt.count(one.tokens)}"),
        )
        for cell in cells
        for one in by_share(cell.by_class)
    ]
    return Table(
        caption=f"What the reference wrote where the texts part, {label(report.decoders[0].name)}",
        columns=(
            Column("Kind", "name"),
            Column("Of first different tokens, %"),
            Column("Of all tokens up to there, %"),
            Column("By place alone, %"),
            Column("p, adjusted"),
            Column("Chance a token, %"),
            Column("First different, of tokens"),
        ),
        rows=tuple(rows),
    )


def _kl(report: TrajectoryReport, cells: Sequence[Entry]) -> Table:
    of_cells = [(cell, kl_rows(cell.by_class)) for cell in cells]
    values = [
        one.kl.mean for _, rows in of_cells for _, *both in rows for one in both if one is not None and one.kl.mean
    ]
    scale = LogScale.around(*(values or [1.0]))
    rows = []
    for cell, of in of_cells:
        for name, ours, theirs in of:
            told = named(report, cell, name)
            before, after = (None if one is None else one.kl.mean for one in (ours, theirs))
            rows.append(
                (
                    Cell(told),
                    *(Cell(fmt.NONE) if one is None else mean_cell(one.kl) for one in (ours, theirs)),
                    Cell(
                        chart=change_strip(
                            f"{told}: from {fmt.number(before)} to {fmt.number(after)} nats", before, after, scale
                        )
                    ),
                    *(_gap(one) for one in (ours, theirs)),
                    _share(theirs),
                    _counted(ours, theirs),
                )
            )
    return Table(
        caption=f"KL by kind of token along both texts, {label(report.decoders[0].name)}",
        columns=(
            Column("Kind", "name"),
            Column("On the reference’s text, nats"),
            Column("On its own text, nats"),
            Column("From the reference’s text ○ to its own ●", "chart"),
            Column("Minus all others, reference’s text"),
            Column("Minus all others, its own text"),
            Column("% of KL, its own"),
            Column("Tokens on either"),
        ),
        rows=tuple(rows),
        axis=axis(scale, "KL in nats a token, logarithmic axis; ring: reference’s text, dot: its own"),
    )


def _others(report: TrajectoryReport) -> tuple[Table, ...]:
    """Every decoder and candidate, a column a kind."""
    cells = [(row_name(report, cell), cell.by_class) for cell in report.cells]

    def first(one: ClassDivergence) -> Cell:
        cell = mean_cell(one.share, percent=True)
        sure = one.p_value is not None and one.p_value < LEVEL
        return Cell(cell.text, f"{cell.note}, {told_p(one.p_value)}" if sure else cell.note, strong=sure)

    def up_to(one: ClassDivergence) -> Cell:
        return mean_cell(one.share_of_tokens, percent=True)

    def kl(one: ClassKl) -> Cell:
        return mean_cell(one.kl)

    return (
        _matrix(
            report,
            "First different tokens by kind, %, every decoder",
            "Decoder",
            [(name, {one.name: first(one) for one in of.first_divergence.classes}) for name, of in cells],
        ),
        _matrix(
            report,
            "All tokens up to there by kind, %, every decoder",
            "Decoder",
            [(name, {one.name: up_to(one) for one in of.first_divergence.classes}) for name, of in cells],
        ),
        _matrix(
            report,
            "KL on the reference’s text by kind, nats, every decoder",
            "Decoder",
            [(name, {one.name: kl(one) for one in of.reference_text}) for name, of in cells],
        ),
        _matrix(
            report,
            "KL on its own text by kind, nats, every decoder",
            "Decoder",
            [(name, {one.name: kl(one) for one in of.candidate_text}) for name, of in cells],
        ),
    )


def distances_by_kind(report: TrajectoryReport) -> tuple[Table, ...]:
    """After each decoder's cut, a column a kind; none where nothing was cut."""
    several = len(report.candidates) > 1
    of = [
        (shaping_name(one) + (f" · {LETTERS[one.candidate]}" if several else ""), one.by_class)
        for one in report.distances
    ]
    if not of:
        return ()
    measures: tuple[tuple[str, Callable[[ClassDistance], Cell]], ...] = (
        ("KL after a decoder’s cut by kind, nats", lambda one: mean_cell(one.kl)),
        ("Infinite after a decoder’s cut by kind, %", lambda one: mean_cell(one.infinite, percent=True)),
        ("TV after a decoder’s cut by kind", lambda one: mean_cell(one.tv)),
        ("Top-1 agreement after a decoder’s cut by kind, %", lambda one: mean_cell(one.top1, percent=True)),
    )
    return tuple(
        _matrix(report, caption, "After", [(name, {one.name: cell(one) for one in found}) for name, found in of])
        for caption, cell in measures
    )


def _matrix(report: TrajectoryReport, caption: str, heading: str, rows: Sequence[tuple[str, dict[str, Cell]]]) -> Table:
    there = {name for _, cells in rows for name in cells}
    names = [name for name in (*(one.name for one in report.token_classes.classes), _NONE) if name in there]
    return Table(
        caption=caption,
        columns=(Column(heading, "name"), *(Column(title(report, name)) for name in names)),
        rows=tuple((Cell(told), *(cells.get(name, Cell(fmt.NONE)) for name in names)) for told, cells in rows),
    )


def told_p(value: float | None) -> str:
    """An adjusted p value; a dash where there is none."""
    return fmt.NONE if value is None else p_value(value)


def _gap(one: ClassKl | None) -> Cell:
    if one is None or one.difference is None:
        return Cell(fmt.NONE)
    cell = mean_cell(one.difference, sign=True)
    told = "after one prompt" if one.difference.ci is None else f"{cell.note}, {p_value(one.p_value)}"
    return Cell(cell.text, told)


def _share(one: ClassKl | None) -> Cell:
    if one is None or one.share_of_kl is None:
        return Cell(fmt.NONE)
    found = fmt.estimate(one.share_of_kl, one.share_of_kl_ci, percent=True)
    return Cell(found.value, found.interval or "")


def _counted(ours: ClassKl | None, theirs: ClassKl | None) -> Cell:
    """On the reference's texts and on the candidate's."""
    both = (ours, theirs)
    shares = ", ".join(fmt.NONE if one is None else fmt.percent(one.share, 2) for one in both)
    lost = sum(one.nonfinite_positions for one in both if one is not None)
    return Cell(
        ", ".join(fmt.count(0 if one is None else one.tokens) for one in both),
        f"{shares} %" + (f", {fmt.count(lost)} not finite" if lost else ""),
    )
