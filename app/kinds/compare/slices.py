"""Where the loss sits: by domain, confidence, position and kind of token; and what it does to single probabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from app.contracts.report import SEVERITIES, BandedSlice, DomainReport, Mean, Slice, TokenClassSlice
from app.kinds.compare.report import CompareReport
from app.reports import format as fmt
from app.reports.blocks import Block, Cell, Column, Facts, Fold, Note, Section, Table, filled
from app.reports.charts.marks import Guide, axis, interval_strip
from app.reports.classes import LEVEL, NONE, OVER_WINDOWS, definitions, listed, lowered, p_value
from app.reports.estimates import estimate_cell
from app.reports.scales import LogScale
from app.reports.untrusted import visible
from app.reports.verdict import edges

_MOST_DAMAGED: Final = 3
_GAP: Final = Column("KL minus that of all other tokens", priority=1)


@dataclass(frozen=True)
class Part:
    """A part of the text by its name. `nonfinite` positions of it have no value."""

    name: str
    of: Slice | DomainReport
    nonfinite: int = 0
    share_of_kl_ci: tuple[float, float] | None = None

    @property
    def kl(self) -> Mean:
        """KL(p‖q) in nats per token."""
        return self.of.divergence.kl if isinstance(self.of, DomainReport) else self.of.kl

    @property
    def ratio(self) -> Mean:
        """Perplexity of the candidate over that of the reference."""
        return self.of.perplexity.ratio if isinstance(self.of, DomainReport) else self.of.perplexity_ratio


def worst(report: CompareReport) -> list[Block]:
    """The three parts of the text that lose the most, of all domains, positions and kinds of token above the mean.

    They are ordered by the lower end of the interval, so that a part of few tokens is not first by chance. Parts
    without an interval come last; a part that is the whole text is none.
    """
    overall = report.divergence.kl.mean or 0.0
    slices = {"domain": domains(report), "position": positions(report), "kind of token": kinds(report)}
    parts = [
        (part, what)
        for what, found in slices.items()
        for part in found
        if part.kl.mean is not None and part.kl.mean > overall and part.of.tokens < report.tokens
    ]
    parts.sort(key=lambda pair: (-(pair[0].kl.ci[0] if pair[0].kl.ci else 0.0), -_value(pair[0].kl)))
    rows = tuple(
        (
            Cell(part.name, what),
            Cell(fmt.count(part.of.tokens)),
            estimate_cell(part.kl),
            Cell(fmt.number(_value(part.kl) / overall, 2) if overall else fmt.NONE),
        )
        for part, what in parts[:_MOST_DAMAGED]
    )
    columns = (Column("Part of the text", "name"), Column("Tokens"), Column("KL, nats"), Column("Times the mean"))
    return filled(Table("Where it loses most", columns, rows, style="stack few", brief=True))


def domains(report: CompareReport) -> list[Part]:
    """The domains, the most damaged first."""
    parts = [Part(visible(name), one, one.nonfinite_positions) for name, one in report.domains.items()]
    return _by_damage(parts)


def positions(report: CompareReport) -> list[Part]:
    """Bands of positions in the window."""
    limit = report.provenance.protocol.reference_context
    return _banded(report.by_position, lambda band: f"Positions {_position_label(band, limit)}")


def kinds(report: CompareReport) -> list[Part]:
    """Kinds of token, the most damaged first. A token may be of several."""
    found = report.token_classes.classes
    return _by_damage([Part(visible(one.title), one, one.nonfinite_positions, one.share_of_kl_ci) for one in found])


def _by_damage(parts: list[Part]) -> list[Part]:
    return sorted(parts, key=lambda part: -_value(part.kl))


def _banded(bands: Sequence[BandedSlice], label: Callable[[BandedSlice], str]) -> list[Part]:
    return [Part(label(band), band) for band in bands if band.tokens]


def where(report: CompareReport) -> list[Block]:
    """Domains, confidence and position on one axis, every other metric folded away, and changes of probability."""
    limit = report.provenance.protocol.reference_context
    by_domain = domains(report)
    by_confidence = _banded(report.by_confidence, _confidence_label)
    by_position = _banded(report.by_position, lambda band: _position_label(band, limit))
    scale = shared_scale((part.kl for part in (*by_domain, *by_confidence, *by_position)), report.divergence.kl)
    return [
        strip_table("By domain, the most damaged first", "Domain", by_domain, report, scale),
        *filled(strip_table("By the reference’s confidence", "Its largest p", by_confidence, report, scale)),
        *filled(strip_table("By position in the window", "Position", by_position, report, scale)),
        Note(_guides(report, scale, "All three")),
        Note(_delta_p_sentence(report)),
    ]


def token_classes(report: CompareReport) -> list[Block]:
    """Which kinds of token lose more than the rest."""
    found = report.token_classes
    parts = kinds(report)
    by_title = {visible(one.title): one for one in found.classes}
    gaps = [_gap(by_title[part.name]) for part in parts]
    if found.none is not None and found.none.tokens:
        parts.append(Part(NONE, found.none))
        gaps.append(Cell(fmt.NONE))
    scale = shared_scale((part.kl for part in parts), report.divergence.kl)
    caption = "By kind of the predicted token, the most damaged first"
    absent = f" Not in this text: {', '.join(map(visible, found.absent))}." if found.absent else ""
    blocks: list[Block] = [
        Note(class_sentence(found.classes), kind="plain"),
        *filled(strip_table(caption, "Kind", parts, report, scale, overlapping=True, gaps=gaps)),
        Note(f"{_guides(report, scale, 'All')} A token may be of several kinds: shares do not add up."),
        Note(visible(found.multiplicity) + absent, "Many classes"),
        Fold("What each class is", [Facts(definitions(found.classes), style="facts wide")]),
    ]
    return [Section("classes", "Which tokens", blocks, "Kinds of token")]


def class_sentence(found: Sequence[TokenClassSlice]) -> str:
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


def _gap(one: TokenClassSlice) -> Cell:
    if one.difference is None:
        return Cell(fmt.NONE)
    cell = estimate_cell(one.difference)
    plus = "+" if (one.difference.mean or 0.0) > 0 else ""
    told = "in one document" if one.difference.ci is None else f"{cell.note}, {p_value(one.p_value)}"
    return Cell(plus + cell.text, told, strong=cell.strong)


def _confidence_label(band: BandedSlice) -> str:
    return f"{fmt.short(band.low)}\u00a0to\u00a0{fmt.short(band.high)}"


def _position_label(band: BandedSlice, limit: int | None) -> str:
    """Positions are whole numbers and the band is half open: [0, 64) reads 0 to 63. `limit` is the reference's context
    if windows are longer."""
    label = _whole_numbers(band)
    return label if limit is None or band.low < limit else f"{label}, beyond the reference’s context"


def _whole_numbers(band: BandedSlice) -> str:
    last = band.high - 1
    return f"{band.low:,.0f}" if last <= band.low else f"{band.low:,.0f}\u00a0to\u00a0{last:,.0f}"


def strip_table(
    caption: str,
    heading: str,
    parts: Sequence[Part],
    report: CompareReport,
    scale: LogScale,
    *,
    overlapping: bool = False,
    gaps: Sequence[Cell] = (),
) -> Table:
    """One row per part, with its mean on the axis. Parts that overlap have shares of the whole text, not of their sum;
    `gaps` is a last column."""
    guides = [Guide(edge, "threshold") for edge in edges(report)] + [Guide(_value(report.divergence.kl), "overall")]
    tokens = max(1, sum(part.of.tokens for part in parts))
    total = sum(part.of.tokens * _value(part.kl) for part in parts)
    if overlapping:
        tokens = max(1, report.tokens - report.nonfinite_positions)
        total = tokens * _value(report.divergence.kl)
    columns = (
        Column(heading, "name"),
        Column("KL, nats"),
        Column("Mean and 95 % interval", "chart"),
        Column("% of all KL", priority=2),
        Column("% of tokens", priority=3),
        Column("Tokens", priority=1),
        Column("Same first choice, %", priority=2),
        Column("Perplexity ratio", priority=2),
        *([_GAP] if gaps else []),
    )
    rows = (
        (
            Cell(part.name, _part_note(part, report)),
            estimate_cell(part.kl),
            Cell(chart=interval_strip(_spoken(part), part.kl.mean, part.kl.ci, scale, guides)),
            _share_of_kl(part, total),
            Cell(fmt.percent(part.of.tokens / tokens, 2)),
            Cell(fmt.count(part.of.tokens), fmt.counted(part.of.documents, "document")),
            estimate_cell(part.of.top1_agreement, percent=True),
            estimate_cell(part.ratio),
            *gaps[number : number + 1],
        )
        for number, part in enumerate(parts)
    )
    return Table(caption, columns, tuple(rows), axis(scale, "KL in nats, logarithmic axis"), "stack strips")


def _share_of_kl(part: Part, total: float) -> Cell:
    if not total:
        return Cell(fmt.NONE)
    share = part.of.tokens * _value(part.kl) / total
    if part.share_of_kl_ci is None:
        return Cell(fmt.percent(share, 2))
    text = fmt.estimate(share, part.share_of_kl_ci, percent=True)
    return Cell(text.value, text.interval or "")


def shared_scale(means: Iterable[Mean], overall: Mean) -> LogScale:
    """Holds every mean; an interval that reaches far down is cut, so that it does not stretch the axis."""
    found = [overall, *means]
    centres = [value for mean in found if (value := _value(mean)) > 0]
    least = min(centres, default=0.0) / 3
    bounds = [bound for mean in found for bound in mean.ci or () if bound > least]
    return LogScale.around(*centres, *bounds)


def _value(mean: Mean) -> float:
    """A mean KL as a number, 0 if there is none."""
    return max(0.0, mean.mean or 0.0)


def _part_note(part: Part, report: CompareReport) -> str:
    """Whether the intervals of a part are over windows unlike those of the whole, and how many values are missing."""
    by_windows = part.kl.clusters == "windows" and report.divergence.kl.clusters != "windows"
    notes = [OVER_WINDOWS] if by_windows else []
    notes += [f"{fmt.count(part.nonfinite)} not finite"] if part.nonfinite else []
    return ", ".join(notes)


def _spoken(part: Part) -> str:
    return f"{part.name}: KL {fmt.estimate(part.kl.mean, part.kl.ci)} nats"


def _guides(report: CompareReport, scale: LogScale, charts: str) -> str:
    """What the lines behind the charts are."""
    named = [
        f"{name} ({fmt.short(edge)})"
        for name, edge in zip(SEVERITIES[1:], edges(report), strict=True)
        if scale.holds(edge)
    ]
    lines = f" Solid {'line: the limit' if len(named) == 1 else 'lines: the limits'} of {', '.join(named)}."
    mean = fmt.number(report.divergence.kl.mean)
    return f"{charts} on one axis. Dashed line: the mean over all tokens, {mean}.{lines if named else ''}"


def _delta_p_sentence(report: CompareReport) -> str:
    delta = report.delta_p
    mean = fmt.estimate(delta.mean, delta.ci)
    return (
        f"Δp = q(x) − p(x) of the token x that really comes next. Mean {mean}, median {fmt.number(delta.median)}, "
        f"root mean square {fmt.number(delta.rms)}."
    )
