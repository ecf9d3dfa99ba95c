"""Candidates of several reports against each other: the ranking, and the paired differences with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from app.contracts.diff_report import UNITS, Difference, DiffReport, Measure, Pair, Ranked
from app.contracts.distances import DISTANCES
from app.reports.blocks import Cell, Column, Table
from app.web import format as fmt
from app.web import listing
from app.web.charts import axis as strip_axis
from app.web.charts import interval_strip
from app.web.charts_differences import Gap, differences_chart
from app.web.scales import LinearScale
from app.web.untrusted import visible

NAMES: Final[dict[Measure, str]] = {distance.name: f"{distance.symbol}, {distance.unit}" for distance in DISTANCES} | {
    "log_perplexity": "ln PPL, nats",
    "top1_agreement": "Top-1 agreement, share",
}
# Above so many pairs the chart holds those with the best candidate alone.
MOST_ROWS: Final = 45
_LABEL: Final = 16
_TIES: Final = {
    "no difference shown": "no difference is shown, which does not say that they are equal. The interval says how far "
    "they may differ",
    "cannot be judged": "cannot be judged on so few documents",
    "equal": "equal at every position",
}
_COLUMNS: Final = (
    Column("Difference"),
    Column("95 % interval"),
    Column("p"),
    Column("p, corrected"),
    Column("", "text"),
)


@dataclass(frozen=True)
class OfPair:
    """One pair in full. `chart` is of the measure that ranks: all domains, and each where there are several."""

    heading: str
    sentence: str
    chart: Markup
    measures: Table
    domains: Table | None
    token_classes: Table | None


@dataclass(frozen=True)
class Shown:
    """All that the page draws."""

    ranking: Table
    ranking_note: str
    chart: Markup | None
    chart_title: str
    chart_note: str
    pair_note: str
    pairs: tuple[OfPair, ...]
    classes_note: str
    ties: str
    mismatches: Table | None


def difference(report: DiffReport) -> Shown:
    """The tables and charts of the differences."""
    several = len(report.pairs) > 1
    charted = _charted(report) if several else ()
    whole = len(charted) == len(report.pairs)
    gaps = [_pair_gap(pair, report, second=None if whole else _best(report)) for pair in charted]
    return Shown(
        ranking=_ranking(report),
        ranking_note=(
            "A rank is a range where no difference to a neighbour is shown: the best is one more than how many are "
            "better for sure, the worst is how many there are less how many are worse for sure."
        ),
        chart=_chart(gaps, report, None) if several else None,
        chart_title=f"Every pair, {NAMES[report.by]}"
        if whole
        else f"The best candidate against each other one, {NAMES[report.by]}",
        chart_note=(
            "The candidate that is named first minus the other one, at the same tokens. "
            f"{_marks(report, ' over all pairs')} An interval is not corrected, so it may leave zero out where none is "
            "shown."
        ),
        pair_note=(
            f"At the same tokens, so that what makes a text hard cancels. {_marks(report)} Intervals are not corrected."
        ),
        pairs=tuple(_pair(pair, report) for pair in report.pairs),
        classes_note=classes_note(report),
        ties=ties(report),
        mismatches=_mismatches(report) if report.mismatches else None,
    )


def _marks(report: DiffReport, over: str = "") -> str:
    """What a point, a ring and, where there is one, a cross of the charts say."""
    rows = [row for pair in report.pairs for row in (_of(pair, report.by), *pair.domains)]
    marks = f"Filled: a difference that is shown after Holm’s correction{over}; rings: none is shown"
    if any(row.verdict == "cannot be judged" for row in rows):
        marks += (
            "; crosses: it cannot be judged, for a domain of fewer than six documents speaks of these alone, and a "
            "single window has no interval"
        )
    return f"{marks}."


def _charted(report: DiffReport) -> tuple[Pair, ...]:
    if len(report.pairs) <= MOST_ROWS:
        return report.pairs
    best = _best(report)
    return tuple(pair for pair in report.pairs if best in (pair.earlier, pair.later))


def _best(report: DiffReport) -> str:
    return report.ranking[0].letter


def _of(pair: Pair, measure: Measure) -> Difference:
    return next(row for row in pair.differences if row.measure == measure)


def _pair_gap(pair: Pair, report: DiffReport, *, second: str | None) -> Gap:
    """A pair's row: the later minus the earlier one; or, where `second` is the later one, the other way round."""
    row = _of(pair, report.by)
    if second != pair.later:
        return _gap(f"{pair.later} − {pair.earlier}", row)
    turned: dict[str, str] = {"better": "worse", "worse": "better"}
    mean, ci = row.difference.mean, row.difference.ci
    difference = row.difference.model_copy(
        update={"mean": None if mean is None else 0.0 - mean, "ci": None if ci is None else (0.0 - ci[1], 0.0 - ci[0])}
    )
    return _gap(
        f"{pair.earlier} − {pair.later}",
        row.model_copy(update={"difference": difference, "verdict": turned.get(row.verdict, row.verdict)}),
    )


def _gap(label: str, row: Difference) -> Gap:
    value = fmt.estimate(row.difference.mean, row.difference.ci)
    label = visible(label)
    return Gap(
        label if len(label) <= _LABEL else f"{label[: _LABEL - 1]}…",
        f"{_signed(row)} {value.interval or ''}".rstrip(),
        row.difference.mean or 0.0,
        row.difference.ci,
        row.verdict,
    )


def _chart(gaps: Sequence[Gap], report: DiffReport, pair: Pair | None) -> Markup:
    first, other = (pair.later, pair.earlier) if pair else ("the first", "the second")
    sides = (f"{first} is better", f"{other} is better")
    if report.by == "top1_agreement":
        sides = sides[::-1]
    return differences_chart(
        gaps,
        title=f"Paired differences in {NAMES[report.by]}",
        unit="share" if report.by == "top1_agreement" else f"{UNITS[report.by]} a token",
        left=sides[0],
        right=sides[1],
    )


def _ranking(report: DiffReport) -> Table:
    rows = report.ranking
    known = [value for row in rows for value in (row.value.mean, *(row.value.ci or ())) if value is not None]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    margin = 0.04 * (high - low) or 0.5 * abs(high) or 0.5
    scale = LinearScale(low - margin, high + margin)

    def cells(row: Ranked) -> tuple[Cell, ...]:
        value = fmt.estimate(row.value.mean, row.value.ci)
        strip = interval_strip(f"{row.letter}: {value}", row.value.mean, row.value.ci, scale)
        return (
            Cell(row.letter, strong=True),
            Cell(rank(row)),
            Cell(visible(row.candidate), row.job),
            Cell(value.value, value.interval or ""),
            Cell(chart=strip),
            Cell(fmt.number(row.perplexity, 4)),
            Cell(fmt.NONE if row.bytes is None else fmt.size(row.bytes)),
            Cell(listing.decided(row.severity, row.classes)),
        )

    return Table(
        caption=f"Ranking by {NAMES[report.by]}",
        columns=(
            Column("", "name"),
            Column("Rank"),
            Column("Candidate", "text"),
            Column("Mean"),
            Column("95 % interval", "chart"),
            Column("PPL"),
            Column("Size"),
            Column("Severity", "text"),
        ),
        rows=tuple(cells(row) for row in rows),
        axis=strip_axis(scale, NAMES[report.by]),
    )


def rank(row: Ranked) -> str:
    """`2`, or `1–3` where no difference to a neighbour is shown."""
    return f"{row.best_rank}" if row.best_rank == row.worst_rank else f"{row.best_rank}–{row.worst_rank}"


def _pair(pair: Pair, report: DiffReport) -> OfPair:
    name = f"{pair.later} − {pair.earlier}"
    whole = _gap("all tokens", _of(pair, report.by))
    gaps = [whole, *(_gap(row.domain or "", row) for row in pair.domains)]
    return OfPair(
        heading=name,
        sentence=f"{whole.text}, {_said(_of(pair, report.by), pair)}",
        chart=_chart(gaps, report, pair),
        measures=Table(
            f"{name} in every measure",
            (Column("Measure", "name"), *_COLUMNS),
            tuple(
                (Cell(NAMES[row.measure], strong=row.measure == report.by), *_cells(row, pair))
                for row in pair.differences
            ),
        ),
        domains=_slices(f"{name} by domain, {NAMES[report.by]}", "Domain", pair.domains, pair),
        token_classes=_slices(f"{name} by token class, {NAMES[report.by]}", "Token class", pair.token_classes, pair),
    )


def _slices(caption: str, heading: str, rows: Sequence[Difference], pair: Pair) -> Table | None:
    if not rows:
        return None
    return Table(
        caption,
        (Column(heading, "name"), Column("Tokens"), *_COLUMNS),
        tuple((Cell(slice_name(row)), Cell(fmt.count(row.tokens)), *_cells(row, pair)) for row in rows),
    )


def slice_name(row: Difference) -> str:
    """What people read for the domain or the token class that a row is of."""
    return visible(row.domain or row.title or row.token_class or "")


def classes_note(report: DiffReport) -> str:
    """What to know of the differences by token class, and what they lack."""
    told = "A token may be of several classes." if any(pair.token_classes for pair in report.pairs) else ""
    return f"{told} {visible(report.token_classes_note)}".strip()


def _cells(row: Difference, pair: Pair) -> tuple[Cell, ...]:
    value = fmt.estimate(row.difference.mean, row.difference.ci)
    return (
        Cell(_signed(row)),
        Cell(value.interval or fmt.NONE),
        Cell(p_value(row.p)),
        Cell(p_value(row.p_adjusted)),
        Cell(_said(row, pair), strong=row.verdict in {"better", "worse"}),
    )


def _said(row: Difference, pair: Pair) -> str:
    return f"{pair.later} is {row.verdict}" if row.verdict in {"better", "worse"} else row.verdict


def _signed(row: Difference) -> str:
    sign = "+" if (row.difference.mean or 0) > 0 else ""
    return sign + fmt.estimate(row.difference.mean, row.difference.ci).value


def p_value(value: float | None) -> str:
    """Three decimals, which is what the bootstrap supports; one that rounds up to the level is told to be below it."""
    if value is None:
        return fmt.NONE
    told = f"{value:.3f}"
    least = next((level for level in ("0.001", "0.050") if value < float(level) <= float(told)), None)
    return f"< {least}" if least is not None else "< 0.001" if value < 0.001 else told


def ties(report: DiffReport) -> str:
    """The pairs of which neither is better in the measure that ranks, by what is known of them."""
    found = []
    for verdict, words in _TIES.items():
        pairs = [
            f"{pair.earlier} and {pair.later}"
            for pair in report.pairs
            if any(row.measure == report.by and row.verdict == verdict for row in pair.differences)
        ]
        if pairs:
            found.append(f"{', '.join(pairs)}: {words}.")
    return " ".join(found)


def _mismatches(report: DiffReport) -> Table:
    return Table(
        "What differs",
        (
            Column("", "name"),
            Column("Report", "text"),
            Column("has", "text"),
            Column("Report", "text"),
            Column("has", "text"),
        ),
        tuple(
            (
                Cell(mismatch.what),
                Cell(mismatch.reports[0]),
                Cell(visible(mismatch.one)),
                Cell(mismatch.reports[1]),
                Cell(visible(mismatch.other)),
            )
            for mismatch in report.mismatches
        ),
    )
