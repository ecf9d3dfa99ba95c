"""Decoders against candidates: one number per cell, darker if more is lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from app.kinds.trajectory.report import Cell as Entry
from app.kinds.trajectory.report import TrajectoryReport
from app.kinds.trajectory.words import CONCLUSIONS, LETTERS, fourth, label, mean_cell, median_of
from app.reports import format as fmt
from app.reports.blocks import Chart
from app.reports.charts.matrix import MatrixCell, matrix_chart
from app.reports.heat import HeatScale

# Steps of heat begin at these factors of amplification, and at these changes of the share of repeated 4-grams.
_FACTORS: Final = (1.05, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
_REPEATED: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)


def matrices(report: TrajectoryReport) -> tuple[Chart, ...]:
    """Three measures of divergence and two of the texts."""
    scale = HeatScale.up_to(max((cell.amplification.kl_candidate_text.mean or 0.0 for cell in report.cells), default=0))

    def own(cell: Entry) -> MatrixCell:
        kl = cell.amplification.kl_candidate_text
        return MatrixCell(fmt.number(kl.mean, 2), f"{fmt.estimate(kl.mean, kl.ci)} nats", scale.step(kl.mean))

    def parted(cell: Entry) -> MatrixCell:
        median, shared = median_of(cell), cell.first_divergence.shared_prefix.mean
        lost = 1.0 if shared is None or not report.most_tokens else 1 - shared / report.most_tokens
        title = f"first different token {median.text} {median.note}"
        return MatrixCell(median.text, title, min(7, max(0, round(7 * lost))))

    def chart(caption: str, unit: str, of: Callable[[Entry], MatrixCell]) -> Chart:
        return _matrix(report, caption, unit, of)

    return (
        chart("KL on its own text", "nats per token", own),
        chart("First different token", "median", parted),
        chart("KL factor", "own text over reference’s", _grown),
        chart("Token edit distance", "% of the length", _edited),
        chart("Repeated 4-grams", "change in points", _repeated),
    )


def _grown(cell: Entry) -> MatrixCell:
    ratio = cell.amplification.kl
    title = f"{fmt.estimate(ratio.value, ratio.ci)}, {CONCLUSIONS[cell.amplification.conclusion]}"
    text = fmt.NONE if ratio.value is None else f"× {fmt.number(ratio.value, 2)}"
    return MatrixCell(text, title, _step(ratio.value, _FACTORS))


def _edited(cell: Entry) -> MatrixCell:
    distance = cell.edit_distance[-1].distance if cell.edit_distance else None
    if distance is None or distance.mean is None:
        return MatrixCell(fmt.NONE, "no edit distance", 0)
    shown = fmt.estimate(distance.mean, distance.ci, percent=True)
    return MatrixCell(fmt.percent(distance.mean, 2), f"edit distance {shown} % of the length", round(7 * distance.mean))


def _repeated(cell: Entry) -> MatrixCell:
    change = fourth(cell.change.repetition)
    if change is None or change.mean is None:
        return MatrixCell(fmt.NONE, "no repeated 4-grams", 0)
    shown = mean_cell(change, percent=True, sign=True)
    title = f"repeated 4-grams {shown.text} {shown.note}".rstrip() + " points"
    return MatrixCell(fmt.signed(100 * change.mean, 2), title, _step(abs(change.mean), _REPEATED))


def _step(value: float | None, edges: Sequence[float]) -> int:
    return sum((value or 0.0) >= edge for edge in edges)


def _matrix(report: TrajectoryReport, caption: str, unit: str, of: Callable[[Entry], MatrixCell]) -> Chart:
    by_place = {(cell.decoder, cell.candidate): of(cell) for cell in report.cells}
    names = [run.name for run in report.decoders]
    letters = LETTERS[: len(report.candidates)]
    empty = MatrixCell(fmt.NONE, "not measured", 0)
    cells = [[by_place.get((name, number), empty) for number in range(len(letters))] for name in names]
    title = f"{caption}: decoder by candidate"
    return Chart(caption, matrix_chart(title, list(map(label, names)), letters, cells), unit)
