"""Where the two models’ texts part, and how far apart they end."""

from __future__ import annotations

from typing import Final

from app.kinds.trajectory.report import Cell as Entry
from app.kinds.trajectory.report import TrajectoryReport
from app.reports.blocks import Cell, Column, Table
from app.web import format as fmt
from app.web.charts import axis
from app.web.charts_survival import Curve, survival_strip
from app.web.scales import LinearScale
from app.web.sections.trajectory_words import mean_cell, median_of, row_name, title_of

# Characters of a name that the legend of a chart has room for on a telephone.
_LEGEND: Final = 40


def curve(report: TrajectoryReport, cell: Entry) -> Curve:
    """A cell’s survival curve, named so that it fits a legend."""
    name = title_of(report, cell.candidate)
    return Curve(
        name if len(name) <= _LEGEND else f"{name[: _LEGEND - 1]}…",
        tuple((point.tokens, point.share, *point.ci) for point in cell.survival),
        cell.candidate,
    )


def parting(report: TrajectoryReport) -> Table:
    """The table of survival: curve, median, shared prefix, hazard."""
    rows = []
    for cell in report.cells:
        median, ci = median_of(cell)
        found = cell.first_divergence
        name = row_name(report, cell)
        rows.append(
            (
                Cell(name),
                Cell(chart=survival_strip(f"{name}: texts still the same", curve(report, cell), report.most_tokens)),
                Cell(median, ci, strong=True),
                mean_cell(found.shared_prefix),
                mean_cell(found.diverged, percent=True),
                mean_cell(found.hazard, percent=True),
            )
        )
    return Table(
        caption="Where the texts part",
        columns=(
            Column("Decoder", "name"),
            Column("Same so far", "chart"),
            Column("First different token, median"),
            Column("Shared prefix, tokens"),
            Column("Parted, %"),
            Column("Chance a step, %"),
        ),
        rows=tuple(rows),
        axis=axis(LinearScale(0.0, float(max(1, report.most_tokens))), "generated tokens, linear axis"),
    )


def edits(report: TrajectoryReport) -> Table:
    """Edit distances by length."""
    lengths = sorted({edit.tokens for cell in report.cells for edit in cell.edit_distance})
    rows = []
    for cell in report.cells:
        by_length = {edit.tokens: edit.distance for edit in cell.edit_distance}
        rows.append(
            (
                Cell(row_name(report, cell)),
                *(
                    mean_cell(by_length[length], percent=True) if length in by_length else Cell(fmt.NONE)
                    for length in lengths
                ),
            )
        )
    return Table(
        caption="Token edit distance, % of the length, after so many tokens",
        columns=(Column("Decoder", "name"), *(Column(fmt.count(length)) for length in lengths)),
        rows=tuple(rows),
    )
