"""Where the loss sits by kind of token: numbers, code, JSON, tool calls, names, rare tokens and the rest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from app.contracts.report import BandedSlice, Slice, TokenClassSlice
from app.kinds.compare.report import CompareReport
from app.kinds.surface.report import SurfaceTokenClass
from app.kinds.sweep.report import SweepTokenClass
from app.web import format as fmt
from app.web.sections.estimates import estimate_cell
from app.web.sections.further import further
from app.web.sections.slices import Row, banded_parts, banded_rows, guide_note, shared_scale, strip_table
from app.web.tables import Cell, Column, Table
from app.web.untrusted import visible

LEVEL = 0.05
NONE = "In no class"
# A p value below is said to be below: its digits speak of the approximation.
LEAST = 0.001


@dataclass(frozen=True)
class Definition:
    """A term and what it means, as the page's lists of facts take it."""

    name: str
    value: str
    code: bool = False


@dataclass(frozen=True)
class Classes:
    """The section: a sentence, the chart of the classes, the chart by frequency, what an unfolded list has beside them,
    and what to know of both."""

    sentence: str
    kinds: Table
    frequency: Table
    further: tuple[Table, ...]
    guides: str
    multiplicity: str
    absent: str
    definitions: tuple[Definition, ...]
    frequency_rule: str


def classes(report: CompareReport) -> Classes | None:
    """The section of a report; none where it was written before there were classes."""
    found = report.token_classes
    if found is None:
        return None
    ordered = sorted(found.classes, key=lambda one: -(one.kl.mean or 0.0))
    rows = [_row(visible(one.title), one, one.nonfinite_positions, one.share_of_kl_ci) for one in ordered]
    parts: list[tuple[str, Slice]] = [(visible(one.title), one) for one in ordered]
    if found.none is not None and found.none.tokens:
        rows.append(_row(NONE, found.none))
        parts.append((NONE, found.none))
    bands = banded_rows(found.by_frequency, band_label)
    scale = shared_scale((row.kl for row in (*rows, *bands)), report.divergence.kl)
    gaps = [_gap(one) for one in ordered] + [Cell(fmt.NONE)] * (len(rows) - len(ordered))
    return Classes(
        sentence=sentence(found.classes),
        kinds=strip_table(
            "By kind of the predicted token, the most damaged first",
            "Kind",
            rows,
            report,
            scale,
            overlapping=True,
            beside=((Column("KL minus that of all other tokens"), gaps),),
        ),
        frequency=strip_table("By how often the token occurs in this text", "Occurrences", bands, report, scale),
        further=(
            *further("By kind", "Kind", parts),
            *further("By frequency", "Occurrences", banded_parts(found.by_frequency, band_label)),
        ),
        guides=guide_note(report, scale, "Both") + " A token may be of several kinds: shares do not add up.",
        multiplicity=visible(found.multiplicity),
        absent=f"Not in this text: {', '.join(map(visible, found.absent))}." if found.absent else "",
        definitions=definitions(found.classes),
        frequency_rule=visible(found.frequency_rule),
    )


def definitions(found: Iterable[TokenClassSlice | SweepTokenClass | SurfaceTokenClass]) -> tuple[Definition, ...]:
    """What each class is, in the order of the catalogue."""
    return tuple(Definition(visible(one.title), visible(one.definition)) for one in found)


def sentence(found: tuple[TokenClassSlice, ...]) -> str:
    """Which classes lose more than the rest, and which less, beyond chance."""
    sure = [
        (one.difference.mean, one)
        for one in found
        if one.p_value is not None and one.p_value < LEVEL and one.difference is not None and one.difference.mean
    ]
    sure.sort(key=lambda pair: -abs(pair[0]))
    if not sure:
        return "No kind of token is shown to lose more or less than the others, all kinds taken together."
    parts = []
    for opening, sign in (("More is lost in", 1), ("Less is lost in", -1)):
        group = [visible(lowered(one.title)) for gap, one in sure if gap * sign > 0]
        parts += [f"{opening} {listed(group)}"] if group else []
    return f"{'. '.join(parts)}, each against all other tokens."


def adjusted_over(found: Sequence[TokenClassSlice]) -> str:
    """Over how many classes the p values are adjusted: those that have one; the others by name."""
    without = [visible(lowered(one.title)) for one in found if one.p_value is None]
    judged = len(found) - len(without)
    told = [f"p values are adjusted over {judged} {'class' if judged == 1 else 'classes'} (Holm)."]
    if without:
        told.append(f"None for {listed(without)}: either side stands in at most one document (or window).")
    return " ".join(told if judged else told[1:])


def listed(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]


def band_label(band: BandedSlice) -> str:
    """Occurrences are whole numbers and the band is half open."""
    last = band.high - 1
    if last <= band.low:
        return "once" if band.low == 1 else f"{band.low:,.0f}"
    return f"{band.low:,.0f}\u00a0to\u00a0{last:,.0f}"


def p_value(value: float | None) -> str:
    """An adjusted p value as text."""
    if value is None:
        return "p not known"
    return f"p < {LEAST:g}" if value < LEAST else f"p = {fmt.number(value, 2)}"


def lowered(title: str) -> str:
    """A title within a sentence; JSON keeps its capitals."""
    return title if title[:2].isupper() else title[:1].lower() + title[1:]


def _row(name: str, part: Slice, nonfinite: int = 0, share_ci: tuple[float, float] | None = None) -> Row:
    top1, ratio = part.top1_agreement, part.perplexity_ratio
    return Row(name, part.tokens, part.documents, part.kl, None, top1, ratio, nonfinite, share_ci)


def _gap(one: TokenClassSlice) -> Cell:
    if one.difference is None:
        return Cell(fmt.NONE)
    cell = estimate_cell(one.difference)
    plus = "+" if (one.difference.mean or 0.0) > 0 else ""
    told = "in one document" if one.difference.ci is None else f"{cell.note}, {p_value(one.p_value)}"
    return Cell(plus + cell.text, told, strong=cell.strong)
