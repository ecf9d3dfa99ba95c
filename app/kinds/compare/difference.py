"""Candidates of several reports as blocks: their ranking, every pair, and the slices of the text where they differ."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from markupsafe import Markup

from app.contracts.diff_report import SCHEMA, UNITS, Difference, DiffReport, Measure, Pair, Ranked
from app.contracts.distances import DISTANCES
from app.reports import format as fmt
from app.reports.blocks import Block, Cell, Chart, Code, Column, Fact, Fold, Note, Section, Table, Title, filled
from app.reports.charts.differences import Gap, differences_chart
from app.reports.charts.marks import axis as strip_axis
from app.reports.charts.marks import interval_strip
from app.reports.html import render_html
from app.reports.scales import LinearScale
from app.reports.untrusted import visible
from app.web import listing

NAMES: Final[dict[Measure, str]] = {distance.name: f"{distance.symbol}, {distance.unit}" for distance in DISTANCES} | {
    "log_perplexity": "ln PPL, nats",
    "top1_agreement": "Top-1 agreement, share",
}
MOST_SLICES: Final = 6  # of those that differ for sure
MOST_CHARTED: Final = 45  # pairs
_MOST_ROWS: Final = 12  # that the short output of a terminal has room for
_LABEL: Final = 16
_TIES: Final = {
    "no difference shown": "no difference is shown. The interval is the range in which they may differ",
    "cannot be judged": "cannot be judged on so few documents",
    "equal": "equal at every position",
}
_DECIDED: Final = {"better": "worse", "worse": "better"}
_COLUMNS: Final = (
    Column("Difference"),
    Column("p", priority=2),
    Column("p, corrected", priority=1),
    Column("Outcome", "text"),
)


def render_difference(report: DiffReport, *, seed: int = 0) -> str:
    """The page of differences, computed with this seed."""
    return render_html(blocks(report, seed=seed), schema=SCHEMA)


def blocks(report: DiffReport, *, seed: int = 0) -> list[Block]:
    """What a difference shows, the ranking first. `seed` is that of the bootstrap."""
    lettered = sorted(report.ranking, key=lambda row: row.letter)
    several = len(report.pairs) > 1
    return [
        Title(
            what="difference of candidates",
            heading=f"{len(lettered)} candidates ranked by {NAMES[report.by]}",
            candidate="",
            reference="",
            scored=f"{fmt.count(report.tokens)} tokens of {fmt.count(report.documents)} documents, paired",
            facts=tuple(Fact(row.letter, visible(row.candidate)) for row in lettered),
            version="",
        ),
        Section("ranking", "Ranking", _ranked(report)),
        *([Section("every", "Every pair", _every(report))] if several else []),
        Section("pairs", "Pair by pair" if several else "Differences", _pairs(report)),
        Section("method", "Method", _method(report, lettered, seed)),
    ]


def _ranked(report: DiffReport) -> list[Block]:
    note = (
        "A rank is a range if no difference to a neighbour is shown. It runs from one more than how many are better "
        "for sure to how many are not worse for sure."
    )
    label = [] if report.comparable else [Note(visible(report.label), kind="bad", brief=True), _mismatches(report)]
    tied = ties(report)
    return [
        *label,
        *(Note(visible(warning.text), "Warning", "alert", brief=True) for warning in report.warnings),
        Note(visible(report.verdict), kind="sentence", brief=True),
        ranking(report),
        Note(note),
        *([Note(tied, "Ties")] if tied else []),
    ]


def _method(report: DiffReport, lettered: Sequence[Ranked], seed: int) -> list[Block]:
    command = ["hemostat", "diff", *(row.job for row in lettered), "--by", report.by]
    command += ["--anyway"] * (not report.comparable) + ["--seed", str(seed)] * bool(seed)
    method = f"{report.method[:1].upper()}{report.method[1:]}."
    return [Note(method, kind="plain"), Code(visible(shlex.join(command)), "Command line")]


def ranking(report: DiffReport) -> Table:
    """The candidates, best first."""
    rows = report.ranking
    known = [value for row in rows for value in (row.value.mean, *(row.value.ci or ())) if value is not None]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    margin = 0.04 * (high - low) or 0.5 * abs(high) or 0.5
    scale = LinearScale(low - margin, high + margin)
    return Table(
        caption=f"Ranking by {NAMES[report.by]}",
        columns=(
            Column("", "name"),
            Column("Rank"),
            Column("Candidate", "text"),
            Column("Mean"),
            Column("95 % interval", "chart"),
            Column("PPL", priority=2),
            Column("Size", priority=1),
            Column("Severity", "text", priority=3),
        ),
        rows=tuple(_ranking_row(row, scale) for row in rows),
        axis=strip_axis(scale, NAMES[report.by]),
        style="stack strips why",
        brief=True,
    )


def _ranking_row(row: Ranked, scale: LinearScale) -> tuple[Cell, ...]:
    value = fmt.estimate(row.value.mean, row.value.ci)
    return (
        Cell(row.letter, strong=True),
        Cell(rank(row)),
        Cell(visible(row.candidate)),
        Cell(value.value, value.interval or ""),
        Cell(chart=interval_strip(f"{row.letter}: {value}", row.value.mean, row.value.ci, scale)),
        Cell(fmt.number(row.perplexity, 4)),
        Cell(fmt.NONE if row.bytes is None else fmt.size(row.bytes)),
        Cell(listing.decided(row.severity, row.classes)),
    )


def rank(row: Ranked) -> str:
    """`2`, or `1–3` if no difference to a neighbour is shown."""
    return f"{row.best_rank}" if row.best_rank == row.worst_rank else f"{row.best_rank}–{row.worst_rank}"


def ties(report: DiffReport) -> str:
    """The pairs of which neither is better in the measure that ranks, by what is known of them."""
    found = []
    for verdict, words in _TIES.items():
        tied = [f"{pair.earlier} and {pair.later}" for pair in report.pairs if _of(pair, report.by).verdict == verdict]
        found += [f"{', '.join(tied)}: {words}."] if tied else []
    return " ".join(found)


def _mismatches(report: DiffReport) -> Table:
    rows = []
    for mismatch in report.mismatches:
        (one, other), values = mismatch.reports, (visible(mismatch.one), visible(mismatch.other))
        rows.append((Cell(mismatch.what), Cell(values[0], one), Cell(values[1], other)))
    columns = (Column("", "name"), Column("One report", "text"), Column("The other", "text"))
    return Table("What differs", columns, tuple(rows), style="stack few", brief=len(rows) <= MOST_SLICES)


# --- every pair


def _every(report: DiffReport) -> list[Block]:
    gaps = [_gap(_name(pair), _of(pair, report.by)) for pair in report.pairs[:MOST_CHARTED]]
    what = "Every pair" if len(report.pairs) <= MOST_CHARTED else f"The first {MOST_CHARTED} pairs"
    note = (
        "The candidate that is named first minus the other one, at the same tokens. "
        f"{_marks(report)} Intervals are not corrected, so one may leave zero out if no difference is shown."
    )
    table = Table(
        f"Every pair, {NAMES[report.by]}",
        (Column("Pair", "name"), *_COLUMNS),
        tuple((Cell(_name(pair)), *_cells(_of(pair, report.by), pair)) for pair in report.pairs),
        brief=len(report.pairs) <= _MOST_ROWS,
    )
    return [Chart(f"{what}, {NAMES[report.by]}", _chart(gaps, report, None)), Note(note), table]


def _marks(report: DiffReport) -> str:
    """What a point, a ring and a cross of the charts mean; crosses only if there is one."""
    rows = [row for pair in report.pairs for row in (_of(pair, report.by), *pair.domains)]
    crosses = "; crosses: too little text to judge" if any(row.verdict == "cannot be judged" for row in rows) else ""
    return f"Filled: a difference is shown after Holm’s correction; rings: none is shown{crosses}."


def _of(pair: Pair, measure: Measure) -> Difference:
    return next(row for row in pair.differences if row.measure == measure)


def _name(pair: Pair) -> str:
    return f"{pair.later} − {pair.earlier}"


def _gap(label: str, row: Difference) -> Gap:
    label = visible(label)
    return Gap(
        label if len(label) <= _LABEL else f"{label[: _LABEL - 1]}…",
        _told(row),
        row.difference.mean or 0.0,
        row.difference.ci,
        row.verdict,
    )


def _chart(gaps: Sequence[Gap], report: DiffReport, pair: Pair | None) -> Markup:
    first, other = (pair.later, pair.earlier) if pair else ("the first", "the second")
    sides = (f"{first} is better", f"{other} is better")
    agreement = report.by == "top1_agreement"
    left, right = sides[::-1] if agreement else sides
    return differences_chart(
        gaps,
        title=f"Paired differences in {NAMES[report.by]}",
        unit="share" if agreement else f"{UNITS[report.by]} per token",
        left=left,
        right=right,
    )


# --- pair by pair


def _pairs(report: DiffReport) -> list[Block]:
    """Where the text shows a difference, then each pair in full: in folds if there are several."""
    note = f"{_classes(report)} {visible(report.token_classes_note)}".strip()
    classes = [Note(note, "Token classes")] if note else []
    if len(report.pairs) == 1:
        marks = Note(f"At the same tokens, so that what makes a text hard cancels. {_marks(report)}")
        return [*_pair(report.pairs[0], report, brief=True), marks, *_slices(report), *classes]
    folds = [Fold(_summary(pair, report), _pair(pair, report)) for pair in report.pairs]
    return [*_slices(report), *folds, *classes]


def _summary(pair: Pair, report: DiffReport) -> str:
    row = _of(pair, report.by)
    return f"{_name(pair)}: {_told(row)}, {_outcome(row, pair)}"


def _classes(report: DiffReport) -> str:
    return "A token may be of several classes." if any(pair.token_classes for pair in report.pairs) else ""


def _slices(report: DiffReport) -> list[Block]:
    """The slices in which a pair differs for sure, the largest differences first."""
    every = [(pair, row) for pair in report.pairs for row in (*pair.domains, *pair.token_classes)]
    sure = [(pair, row) for pair, row in every if row.verdict in _DECIDED]
    if not every:
        return []
    if not sure:
        return [Note("By domain and token class no difference is shown.", brief=True)]
    sure.sort(key=lambda one: -abs(one[1].difference.mean or 0.0))
    largest = f", the {MOST_SLICES} largest" if len(sure) > MOST_SLICES else ""
    table = Table(
        f"{len(sure)} of {len(every)} slices show a difference{largest}: {NAMES[report.by]}",
        (Column("Pair", "name"), Column("Slice", "text"), *_COLUMNS),
        tuple((Cell(_name(pair)), _slice(row), *_cells(row, pair)) for pair, row in sure[:MOST_SLICES]),
        brief=True,
    )
    return [table]


def _slice(row: Difference) -> Cell:
    """The domain or the token class that a row is of."""
    name = visible(row.domain or row.title or row.token_class or "")
    return Cell(name, "domain" if row.domain else "token class")


def _pair(pair: Pair, report: DiffReport, *, brief: bool = False) -> list[Block]:
    name, by = _name(pair), NAMES[report.by]
    gaps = [_gap("all tokens", _of(pair, report.by)), *(_gap(row.domain or "", row) for row in pair.domains)]
    measures = Table(
        f"{name} in every measure",
        (Column("Measure", "name"), *_COLUMNS),
        tuple(
            (Cell(NAMES[row.measure], strong=row.measure == report.by), *_cells(row, pair)) for row in pair.differences
        ),
        brief=brief,
    )
    slices = [
        Table(
            f"{name} by {what.lower()}, {by}",
            (Column(what, "name"), Column("Tokens", priority=3), *_COLUMNS),
            tuple((replace(_slice(row), note=""), Cell(fmt.count(row.tokens)), *_cells(row, pair)) for row in rows),
        )
        for what, rows in (("Domain", pair.domains), ("Token class", pair.token_classes))
    ]
    chart = Chart(f"{name} in {by}, with 95 % intervals", _chart(gaps, report, pair))
    return [chart, measures, *(block for table in slices for block in filled(table))]


def _cells(row: Difference, pair: Pair) -> tuple[Cell, ...]:
    value = fmt.estimate(row.difference.mean, row.difference.ci)
    return (
        Cell(_signed(row), value.interval or ""),
        Cell(p_value(row.p)),
        Cell(p_value(row.p_adjusted)),
        Cell(_outcome(row, pair), strong=row.verdict in _DECIDED),
    )


def _outcome(row: Difference, pair: Pair) -> str:
    return f"{pair.later} is {row.verdict}" if row.verdict in _DECIDED else row.verdict


def _told(row: Difference) -> str:
    interval = fmt.estimate(row.difference.mean, row.difference.ci).interval
    return f"{_signed(row)} {interval or ''}".rstrip()


def _signed(row: Difference) -> str:
    sign = "+" if (row.difference.mean or 0) > 0 else ""
    return sign + fmt.estimate(row.difference.mean, row.difference.ci).value


def p_value(value: float | None) -> str:
    """Three decimals, which is what the bootstrap supports. One that rounds up to the level is shown as below it."""
    if value is None:
        return fmt.NONE
    shown = f"{value:.3f}"
    least = next((level for level in ("0.001", "0.050") if value < float(level) <= float(shown)), None)
    return f"< {least}" if least is not None else "< 0.001" if value < 0.001 else shown
