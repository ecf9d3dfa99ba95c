"""Where the loss sits: by domain, by the reference's confidence, by position in the window; and what it does to Δp."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from app.contracts.report import SEVERITIES, BandedSlice, Mean, Slice
from app.kinds.compare.report import CompareReport
from app.web import format as fmt
from app.web.charts import Guide, axis, interval_strip, mirrored_bars
from app.web.scales import LinearScale, LogScale
from app.web.sections.estimates import estimate_cell
from app.web.sections.further import further
from app.web.sections.verdict import edges
from app.web.tables import Cell, Column, Table
from app.web.untrusted import visible

# What is said of a part with too few documents.
OVER_WINDOWS: Final = "intervals over windows"


@dataclass(frozen=True)
class Slices:
    """Charts that are tables too; `further` is what an unfolded list has beside them."""

    domains: Table
    confidence: Table
    position: Table
    further: tuple[Table, ...]
    delta_p: Table
    delta_p_sentence: str
    guides: str


@dataclass(frozen=True)
class Row:
    """A part of the text, as a line of a table."""

    name: str
    tokens: int
    documents: int
    kl: Mean
    p99: float | None
    top1: Mean
    ratio: Mean
    nonfinite: int = 0
    share_of_kl_ci: tuple[float, float] | None = None


def slices(report: CompareReport) -> Slices:
    """The parts of a report. The three charts share one axis, so that they can be compared."""
    blocks = sorted(report.domains.items(), key=lambda item: -_value(item[1].divergence.kl))
    domains = [
        Row(
            name=visible(name),
            tokens=block.tokens,
            documents=block.documents,
            kl=block.divergence.kl,
            p99=block.divergence.kl.p99,
            top1=block.top1_agreement,
            ratio=block.perplexity.ratio,
            nonfinite=block.nonfinite_positions,
        )
        for name, block in blocks
    ]
    limit = report.provenance.protocol.reference_context

    def position_label(band: BandedSlice) -> str:
        return _position_label(band, limit)

    confidence = banded_rows(report.by_confidence, _confidence_label)
    position = banded_rows(report.by_position, position_label)
    scale = shared_scale((row.kl for row in (*domains, *confidence, *position)), report.divergence.kl)
    return Slices(
        domains=strip_table("By domain, the most damaged first", "Domain", domains, report, scale),
        confidence=strip_table("By the reference’s confidence", "Its largest p", confidence, report, scale),
        position=strip_table("By position in the window", "Position", position, report, scale),
        further=(
            *further("By domain", "Domain", [(visible(name), block) for name, block in blocks]),
            *further("By confidence", "Its largest p", banded_parts(report.by_confidence, _confidence_label)),
            *further("By position", "Position", banded_parts(report.by_position, position_label)),
        ),
        delta_p=_delta_p(report),
        delta_p_sentence=_delta_p_sentence(report),
        guides=guide_note(report, scale),
    )


def banded_rows(bands: Sequence[BandedSlice], label: Callable[[BandedSlice], str]) -> list[Row]:
    """Rows of the bands that hold a token."""
    return [
        Row(label(band), band.tokens, band.documents, band.kl, None, band.top1_agreement, band.perplexity_ratio)
        for band in bands
        if band.tokens
    ]


def banded_parts(bands: Sequence[BandedSlice], label: Callable[[BandedSlice], str]) -> list[tuple[str, Slice]]:
    """The same bands by name."""
    return [(label(band), band) for band in bands if band.tokens]


def _confidence_label(band: BandedSlice) -> str:
    return f"{fmt.short(band.low)}\u00a0to\u00a0{fmt.short(band.high)}"


def _position_label(band: BandedSlice, limit: int | None = None) -> str:
    """Positions are whole numbers and the band is half open: [0, 64) reads 0 to 63. `limit` is the reference's context
    where windows are longer."""
    last = band.high - 1
    label = fmt.short(band.low) if last <= band.low else f"{band.low:,.0f}\u00a0to\u00a0{last:,.0f}"
    return label if limit is None or band.low < limit else f"{label}, beyond the reference’s context"


def strip_table(
    caption: str,
    heading: str,
    rows: Sequence[Row],
    report: CompareReport,
    scale: LogScale,
    *,
    overlapping: bool = False,
    beside: Sequence[tuple[Column, Sequence[Cell]]] = (),
) -> Table:
    """One row a part, with its mean on the axis. Parts that overlap have shares of the whole text, not of their sum;
    `beside` are further columns."""
    guides = [Guide(edge, "threshold") for edge in edges(report)] + [Guide(_value(report.divergence.kl), "overall")]
    tokens = max(1, sum(row.tokens for row in rows))
    total = sum(row.tokens * _value(row.kl) for row in rows)
    if overlapping:
        tokens = max(1, report.tokens - report.nonfinite_positions)
        total = tokens * _value(report.divergence.kl)
    with_tail = any(row.p99 is not None for row in rows)
    columns = [
        Column(heading, "name"),
        Column("KL, nats"),
        Column("Mean and 95 % interval", "chart"),
        *([Column("p99, nats")] if with_tail else []),
        Column("% of all KL"),
        Column("% of tokens"),
        Column("Tokens"),
        Column("Same first choice, %"),
        Column("Perplexity ratio"),
        *(column for column, _ in beside),
    ]
    cells = [
        (
            Cell(row.name, _row_note(row, report)),
            estimate_cell(row.kl),
            Cell(chart=interval_strip(_spoken(row.name, row.kl), row.kl.mean, row.kl.ci, scale, guides)),
            *([Cell(fmt.NONE if row.p99 is None else fmt.number(row.p99))] if with_tail else []),
            _share_of_kl(row, total),
            Cell(fmt.percent(row.tokens / tokens, 2)),
            Cell(fmt.count(row.tokens), f"{fmt.count(row.documents)} document{'' if row.documents == 1 else 's'}"),
            estimate_cell(row.top1, percent=True),
            estimate_cell(row.ratio),
            *(others[number] for _, others in beside),
        )
        for number, row in enumerate(rows)
    ]
    return Table(
        caption=caption,
        columns=tuple(columns),
        rows=tuple(cells),
        axis=axis(scale, "KL in nats, logarithmic axis"),
    )


def _share_of_kl(row: Row, total: float) -> Cell:
    if not total:
        return Cell(fmt.NONE)
    share = row.tokens * _value(row.kl) / total
    if row.share_of_kl_ci is None:
        return Cell(fmt.percent(share, 2))
    text = fmt.estimate(share, row.share_of_kl_ci, percent=True)
    return Cell(text.value, text.interval or "")


def shared_scale(means: Iterable[Mean], overall: Mean) -> LogScale:
    """Holds every mean; an interval that reaches far down is cut, so that it does not stretch the axis."""
    found = [overall, *means]
    centres = [value for mean in found if (value := _value(mean)) > 0]
    least = min(centres, default=0.0) / 3
    bounds = [bound for mean in found for bound in mean.ci or () if bound > least]
    return LogScale.around(*centres, *bounds)


def _value(mean: Mean) -> float:
    """A mean KL as a number, 0 where there is none."""
    return max(0.0, mean.mean or 0.0)


def over_windows(kl: Mean, report: CompareReport) -> bool:
    """Whether a part has too few documents for the intervals that the whole has, so that its own are over windows."""
    return kl.clusters == "windows" and report.divergence.kl.clusters != "windows"


def _row_note(row: Row, report: CompareReport) -> str:
    """Says where a row's intervals are made in another way than those of the whole, and counts what has no value."""
    notes = []
    if over_windows(row.kl, report):
        notes.append(OVER_WINDOWS)
    if row.nonfinite:
        notes.append(f"{fmt.count(row.nonfinite)} not finite")
    return ", ".join(notes)


def _spoken(name: str, mean: Mean) -> str:
    return f"{name}: KL {fmt.estimate(mean.mean, mean.ci)} nats"


def guide_note(report: CompareReport, scale: LogScale, charts: str = "All three") -> str:
    """What the lines behind the charts are."""
    named = [
        f"{name} ({fmt.short(edge)})"
        for name, edge in zip(SEVERITIES[1:], edges(report), strict=True)
        if scale.holds(edge)
    ]
    lines = f" Solid {'line: the threshold' if len(named) == 1 else 'lines: the thresholds'} of {', '.join(named)}."
    return (
        f"{charts} on one axis. Dashed line: the mean over all tokens, {fmt.number(report.divergence.kl.mean)}."
        f"{lines if named else ''}"
    )


def _delta_p(report: CompareReport) -> Table:
    delta = report.delta_p
    pairs = (
        ("one token", delta.min, delta.max),
        ("0.1 %", delta.p001, delta.p999),
        ("1 %", delta.p01, delta.p99),
        ("5 %", delta.p05, delta.p95),
        ("10 %", delta.p10, delta.p90),
    )
    span = max([1e-12, *(abs(value) for _, *both in pairs for value in both if value is not None)])
    return Table(
        caption="How much probability the observed token lost or gained, at least, in the most changed tokens",
        columns=(
            Column("Most changed", "name"),
            Column("Lost"),
            Column("Change of probability, Δp", "chart"),
            Column("Gained"),
        ),
        rows=tuple(
            (
                Cell(name),
                Cell(fmt.number(low)),
                Cell(chart=mirrored_bars(_lost_and_gained(name, low, high), low or 0.0, high or 0.0, span)),
                Cell(fmt.signed(high)),
            )
            for name, low, high in pairs
            if low is not None or high is not None
        ),
        axis=axis(LinearScale(-span, span), "Δp"),
    )


def _lost_and_gained(name: str, low: float | None, high: float | None) -> str:
    return f"{name}: {fmt.signed(low)} and {fmt.signed(high)}"


def _delta_p_sentence(report: CompareReport) -> str:
    delta = report.delta_p
    mean = fmt.estimate(delta.mean, delta.ci)
    return (
        f"Δp = q(x) − p(x) of the token x that really comes next. Mean {mean}, median {fmt.number(delta.median)}, "
        f"root mean square {fmt.number(delta.rms)}."
    )
