"""Decoders against candidates: one number a cell, darker where more is lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from app.kinds.trajectory.report import Cell as Entry
from app.kinds.trajectory.report import TrajectoryReport
from app.web import format as fmt
from app.web.charts_matrix import MatrixCell, matrix_chart
from app.web.heat import HeatScale
from app.web.sections.trajectory_words import (
    CONCLUSIONS,
    LETTERS,
    UNKNOWN,
    factor,
    fourth,
    kl_means,
    label,
    mean_cell,
    median_of,
)

# Steps of heat begin at these factors of amplification, and at these changes of the share of repeated 4-grams.
_FACTORS: Final = (1.05, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
_REPEATED: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)


@dataclass(frozen=True)
class Matrix:
    """A chart of one measure over decoders and candidates."""

    caption: str
    unit: str
    chart: Markup


def matrices(report: TrajectoryReport) -> tuple[Matrix, ...]:
    """Five measures over decoders and candidates: three of divergence, two of the texts."""
    largest = max((kl_means(cell)[1].mean or 0.0 for cell in report.cells), default=0.0)
    scale = HeatScale.up_to(largest)

    def own(cell: Entry) -> MatrixCell:
        _, kl = kl_means(cell)
        text = fmt.estimate(kl.mean, kl.ci)
        return MatrixCell(fmt.number(kl.mean, 2), f"{text} nats", scale.step(kl.mean))

    def parted(cell: Entry) -> MatrixCell:
        median, ci = median_of(cell)
        shared = cell.first_divergence.shared_prefix.mean
        left = 1.0 if shared is None or not report.most_tokens else 1 - shared / report.most_tokens
        return MatrixCell(median, f"first different token {median} {ci}", min(7, max(0, round(7 * left))))

    def grown(cell: Entry) -> MatrixCell:
        ratio = cell.amplification.kl
        step = sum((ratio.value or 0.0) >= edge for edge in _FACTORS)
        return MatrixCell(
            fmt.NONE if ratio.value is None else f"× {fmt.number(ratio.value, 2)}",
            f"{factor(ratio)}, {CONCLUSIONS[cell.amplification.conclusion]}",
            step,
        )

    def edited(cell: Entry) -> MatrixCell:
        distance = cell.edit_distance[-1].distance if cell.edit_distance else UNKNOWN
        text = fmt.NONE if distance.mean is None else fmt.percent(distance.mean, 2)
        told = fmt.estimate(distance.mean, distance.ci, percent=True)
        return MatrixCell(text, f"edit distance {told} % of the length", round(7 * (distance.mean or 0.0)))

    def repeated(cell: Entry) -> MatrixCell:
        change = fourth(cell.change.repetition)
        shown = mean_cell(change, percent=True, sign=True)
        told = f"{shown.text} {shown.note}".rstrip()
        step = sum(abs(change.mean or 0.0) >= edge for edge in _REPEATED)
        text = fmt.signed(None if change.mean is None else 100 * change.mean, 2)
        return MatrixCell(text, f"repeated 4-grams {told} points", step)

    measures: tuple[tuple[str, str, Callable[[Entry], MatrixCell]], ...] = (
        ("KL on its own text", "nats a token", own),
        ("First different token", "median", parted),
        ("KL factor", "own text over reference’s", grown),
        ("Token edit distance", "% of the length", edited),
        ("Repeated 4-grams", "change in points", repeated),
    )
    return tuple(Matrix(caption, unit, _matrix(report, caption, of)) for caption, unit, of in measures)


def _matrix(report: TrajectoryReport, caption: str, of: Callable[[Entry], MatrixCell]) -> Markup:
    by_place = {(cell.decoder, cell.candidate): cell for cell in report.cells}
    empty = MatrixCell(fmt.NONE, "not measured", 0)
    names = [run.name for run in report.decoders]
    return matrix_chart(
        f"{caption}: decoder by candidate",
        [label(name) for name in names],
        list(LETTERS[: len(report.candidates)]),
        [
            [
                of(by_place[name, index]) if (name, index) in by_place else empty
                for index in range(len(report.candidates))
            ]
            for name in names
        ],
    )
