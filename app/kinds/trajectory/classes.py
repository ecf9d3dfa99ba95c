"""Which kinds of token break the path first, and along which the models are apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from app.kinds.trajectory.report import ClassDivergence, ClassesOfCell, ClassKl, TrajectoryReport
from app.kinds.trajectory.tables import change, drawn, folded, mean, table
from app.kinds.trajectory.words import LETTERS, label, mean_cell
from app.reports import format as fmt
from app.reports.blocks import Block, Cell, Column, Facts, Fold, Note, Table
from app.reports.charts.marks import axis
from app.reports.classes import LEVEL, NONE, definitions, listed, lowered, p_value
from app.reports.scales import LogScale
from app.reports.untrusted import visible

_NONE: Final = "none"
# The places of four texts can be dealt in 24 ways at most, so that no two-sided p value is below 2/24.
_FEWEST_PARTED: Final = 5
Kl = tuple[str, ClassKl | None, ClassKl | None]


def kinds(report: TrajectoryReport) -> list[Block]:
    """The first decoder's sentences and tables."""
    absent = report.token_classes.absent
    return [
        Note(parting_sentence(report), kind="plain"),
        Note(kl_sentence(report), kind="plain"),
        folded(breaking(report)),
        folded(kl_by_kind(report)),
        Note(
            "A class is judged by the prompt and the generated text; what the text was meant to be is not known. "
            "A token may be in several classes. “By place alone” deals the same places at random to the texts. "
            f"p is corrected by Holm’s rule within one candidate and text; below {LEVEL:g} the class differs."
            + (f" Not in these texts: {', '.join(map(visible, absent))}." if absent else "")
        ),
        Fold("What each class is", [Facts(definitions(report.token_classes.classes), style="facts wide")]),
    ]


def title(report: TrajectoryReport, name: str) -> str:
    """A class's title."""
    titles = {one.name: one.title for one in report.token_classes.classes} | {_NONE: NONE}
    return visible(titles.get(name, name))


def _named(report: TrajectoryReport, candidate: int, name: str) -> str:
    """A class's title, behind the candidate's letter if there are several."""
    return f"{LETTERS[candidate]} · {title(report, name)}" if len(report.candidates) > 1 else title(report, name)


def _sure(one: ClassDivergence | ClassKl) -> bool:
    return one.p_value is not None and one.p_value < LEVEL


def _by_sign(report: TrajectoryReport, gaps: Iterable[tuple[str, float]], more: str, less: str) -> str:
    """`more at names, less at numbers`: the largest gap first."""
    ordered = sorted(gaps, key=lambda gap: -abs(gap[1]))
    groups = {
        word: [lowered(title(report, name)) for name, gap in ordered if gap * sign > 0]
        for word, sign in ((more, 1), (less, -1))
    }
    return ", ".join(f"{word} at {listed(names)}" for word, names in groups.items() if names)


def parting_sentence(report: TrajectoryReport) -> str:
    """At which kinds of token the texts of the first decoder and candidate part."""
    found = report.token_classes.by_candidate[0].first_divergence
    who = f", candidate {LETTERS[0]}," if len(report.candidates) > 1 else ""
    where, at = f"With {label(report.decoders[0].name)}{who}", "part at a token of the reference’s"
    ended = f" {fmt.counted(found.after_the_end, 'text')} more part after the reference’s text has ended."
    late = ended if found.after_the_end else ""
    if not found.parted:
        return f"{where} no texts {at}.{late}"
    opening = f"{where} {fmt.count(found.parted)} of {fmt.counted(report.prompts, 'text')} {at}"
    if found.parted < _FEWEST_PARTED:
        return f"{opening}: too few to compare kinds of token.{late}"
    gaps = [
        (one.name, one.share.mean - one.share_by_place)
        for one in found.classes
        if _sure(one) and one.share.mean is not None and one.share_by_place is not None
    ]
    shown = _by_sign(report, gaps, "more often", "less often")
    return f"{opening}, {f'{shown} than by place alone' if shown else 'at no kind shown to be special'}.{late}"


def kl_sentence(report: TrajectoryReport) -> str:
    """At which kinds of token KL differs, on both texts of the first decoder and candidate."""
    of = report.token_classes.by_candidate[0]
    own = f"candidate {LETTERS[0]}’s own text" if len(report.candidates) > 1 else "the candidate’s own text"
    return f"{_kl_on('the reference’s text', of.reference_text, report)} {_kl_on(own, of.candidate_text, report)}"


def _kl_on(text: str, side: Sequence[ClassKl], report: TrajectoryReport) -> str:
    named = [one for one in side if one.name != _NONE]
    if named and all(one.p_value is None for one in named):
        return f"On {text} no kind of token can be judged: too few prompts have it, or the others."
    gaps = [(one.name, one.difference.mean or 0.0) for one in named if _sure(one) and one.difference is not None]
    shown = _by_sign(report, gaps, "larger", "smaller")
    return f"On {text} KL is {f'{shown}, against all other tokens' if shown else 'not shown to differ between kinds'}."


def breaking(report: TrajectoryReport) -> Table:
    """What the reference wrote at the first different tokens of the first decoder, the most frequent class first."""
    rows = [
        (_named(report, number, one.name), one)
        for number, of in enumerate(report.token_classes.by_candidate)
        for one in sorted(
            of.first_divergence.classes,
            key=lambda one: (one.name == _NONE, -(one.share.mean or 0.0), -one.tokens),
        )
    ]
    return table(
        f"What the reference wrote where the texts part, {label(report.decoders[0].name)}",
        "Kind",
        rows,
        [
            (Column("Of first different tokens, %"), lambda one: mean_cell(one.share, percent=True, strong=True)),
            (
                Column("By place alone, %"),
                lambda one: Cell(fmt.NONE if one.share_by_place is None else fmt.percent(one.share_by_place, 2)),
            ),
            (Column("p, adjusted"), lambda one: Cell(p_text(one.p_value))),
            (
                Column("First different, of tokens", priority=2),
                lambda one: Cell(fmt.count(one.divergences), f"of {fmt.count(one.tokens)}"),
            ),
        ],
    )


def kl_by_kind(report: TrajectoryReport) -> Table:
    """KL of each class along both texts of the first decoder."""
    candidates = list(enumerate(map(kl_rows, report.token_classes.by_candidate)))
    means = [one.kl.mean for _, rows in candidates for _, *both in rows for one in both if one and one.kl.mean]
    scale = LogScale.around(*means)

    def kl(one: ClassKl | None) -> float | None:
        return one.kl.mean if one else None

    return table(
        f"KL by kind of token along both texts, {label(report.decoders[0].name)}",
        "Kind",
        [
            (_named(report, number, name), (_named(report, number, name), *both))
            for number, rows in candidates
            for name, *both in rows
        ],
        [
            mean("On the reference’s text, nats", lambda row: row[1] and row[1].kl),
            mean("On its own text, nats", lambda row: row[2] and row[2].kl),
            drawn(
                "From the reference’s text ○ to its own ●", lambda row: change(row[0], kl(row[1]), kl(row[2]), scale)
            ),
            (Column("Minus all others, reference’s text", priority=1), lambda row: _gap(row[1])),
            (Column("Minus all others, its own text", priority=1), lambda row: _gap(row[2])),
            (Column("% of KL, its own", priority=2), lambda row: _share(row[2])),
            (Column("Tokens on either", priority=3), lambda row: _counted(row[1:])),
        ],
        axis(scale, "KL in nats per token, logarithmic axis; ring: reference’s text, dot: its own"),
    )


def kl_rows(of: ClassesOfCell) -> list[Kl]:
    """Name, along the reference's texts, along the candidate's own; the largest on its own first, `none` last."""
    ours, theirs = ({one.name: one for one in side} for side in (of.reference_text, of.candidate_text))

    def order(name: str) -> tuple[bool, float]:
        return name == _NONE, -((theirs[name].kl.mean or 0.0) if name in theirs else 0.0)

    return [(name, ours.get(name), theirs.get(name)) for name in sorted(dict.fromkeys([*theirs, *ours]), key=order)]


def p_text(value: float | None) -> str:
    """An adjusted p value; a dash if there is none."""
    return fmt.NONE if value is None else p_value(value)


def _gap(one: ClassKl | None) -> Cell:
    if one is None or one.difference is None:
        return Cell(fmt.NONE)
    cell = mean_cell(one.difference, sign=True)
    return Cell(cell.text, f"{cell.note}, {p_value(one.p_value)}" if one.difference.ci else "after one prompt")


def _share(one: ClassKl | None) -> Cell:
    if one is None or one.share_of_kl is None:
        return Cell(fmt.NONE)
    found = fmt.estimate(one.share_of_kl, one.share_of_kl_ci, percent=True)
    return Cell(found.value, found.interval or "")


def _counted(both: Sequence[ClassKl | None]) -> Cell:
    """On the reference's texts and on the candidate's."""
    shares = ", ".join(fmt.percent(one.share, 2) if one else fmt.NONE for one in both)
    lost = sum(one.nonfinite_positions for one in both if one)
    return Cell(
        ", ".join(fmt.count(one.tokens if one else 0) for one in both),
        f"{shares} %" + (f", {fmt.count(lost)} not finite" if lost else ""),
    )
