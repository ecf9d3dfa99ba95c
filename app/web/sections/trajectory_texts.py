"""What the texts look like: length, repetition, entropy, and some of them beside each other."""

from __future__ import annotations

from dataclasses import dataclass

from app.kinds.trajectory.report import Sample, TextStatistics, TrajectoryReport
from app.reports.blocks import Cell, Column, Table
from app.web import format as fmt
from app.web.sections.trajectory_words import LETTERS, fourth, label, mean_cell, row_name
from app.web.untrusted import visible, with_breaks


@dataclass(frozen=True)
class Text:
    """A sample as it is drawn."""

    heading: str
    prompt: str
    shared: str
    reference: str
    candidate: str


def texts(report: TrajectoryReport) -> Table:
    """Statistics of each model’s texts by each decoder."""
    rows = []
    for of in report.reference_texts:
        rows.append((Cell(f"{label(of.decoder)}, reference"), *_statistics(of.text)))
        rows += [
            (Cell(row_name(report, cell)), *_statistics(cell.text))
            for cell in report.cells
            if cell.decoder == of.decoder
        ]
    return Table(
        caption="What the texts look like",
        columns=(
            Column("Decoder", "name"),
            Column("Length, tokens"),
            Column("Ended itself, %"),
            Column("Repeated 4-grams, %"),
            Column("Distinct tokens, %"),
            Column("Own entropy, nats"),
            Column("Own surprise, nats"),
            Column("Surprise under p, nats"),
        ),
        rows=tuple(rows),
    )


def _statistics(text: TextStatistics) -> tuple[Cell, ...]:
    return (
        mean_cell(text.length),
        mean_cell(text.ended, percent=True),
        mean_cell(fourth(text.repetition), percent=True),
        mean_cell(text.distinct, percent=True),
        mean_cell(text.entropy),
        mean_cell(text.surprise),
        mean_cell(text.reference_surprise),
    )


def changes(report: TrajectoryReport) -> Table:
    """Candidate minus reference."""
    rows = []
    for cell in report.cells:
        change = cell.change
        rows.append(
            (
                Cell(row_name(report, cell)),
                mean_cell(change.length, sign=True),
                mean_cell(fourth(change.repetition), percent=True, sign=True),
                mean_cell(change.distinct, percent=True, sign=True),
                mean_cell(change.entropy, sign=True),
                mean_cell(change.surprise, sign=True),
                mean_cell(change.reference_surprise, sign=True),
            )
        )
    return Table(
        caption="Candidate minus reference, paired by prompt",
        columns=(
            Column("Decoder", "name"),
            Column("Length, tokens"),
            Column("Repeated 4-grams, points"),
            Column("Distinct tokens, points"),
            Column("Own entropy, nats"),
            Column("Own surprise, nats"),
            Column("Surprise under p, nats"),
        ),
        rows=tuple(rows),
    )


def shown(report: TrajectoryReport, sample: Sample) -> Text:
    """A sample as it is drawn."""
    where = (
        "the same text" if sample.first_divergence is None else f"parts at token {fmt.count(sample.first_divergence)}"
    )
    parts = [label(sample.decoder), f"{sample.document} · {sample.domain}", where]
    if len(report.candidates) > 1:
        parts.insert(1, LETTERS[sample.candidate])
    return Text(
        heading=visible(" · ".join(parts)),
        prompt=with_breaks(sample.prompt),
        shared=with_breaks(sample.shared),
        reference=with_breaks(sample.reference),
        candidate=with_breaks(sample.candidate_text),
    )
