"""Rules on generated text: does decoding make the damage grow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from app.kinds.trajectory.report import Cell, Ratio, TrajectoryReport
from examples.paper.finding import Figure, Finding, NoNumberError, decided
from examples.paper.rulings.charts import bars
from examples.paper.rulings.reports import ORIGINAL, Reports

JOB: Final = "decoders"


def decoding_tokens(reports: Reports) -> Finding:
    """Edits between the free texts over one-step disagreements, cell by cell, against 1."""
    report = reports.of(JOB, TrajectoryReport)
    figures = [_edits(report, cell) for cell in report.cells]
    return _majority(report, figures, "decoding-tokens", "Edits between free texts over one-step disagreements")


def decoding_distributions(reports: Reports) -> Finding:
    """KL on the candidate's own text over KL on the original's, cell by cell, against 1."""
    report = reports.of(JOB, TrajectoryReport)
    figures = [_figure(report, cell, cell.amplification.kl, "the original's text") for cell in report.cells]
    return _majority(report, figures, "decoding-kl", "KL on the model's own text over KL on the original's")


def _name(report: TrajectoryReport, cell: Cell) -> str:
    recipe = report.candidates[cell.candidate].model.recipe
    return f"{cell.decoder}, {' + '.join(str(step['type']) for step in recipe)}"


def _edits(report: TrajectoryReport, cell: Cell) -> Figure:
    what = _name(report, cell)
    edits = Figure.of(f"{what}: edits", cell.edit_distance[-1].distance, "per token", ORIGINAL)
    one_step = Figure.of(f"{what}: one-step disagreements", cell.amplification.one_step, "per token", ORIGINAL)
    return edits.over(one_step, what, "times", "one step at a time")


def _figure(report: TrajectoryReport, cell: Cell, ratio: Ratio, against: str) -> Figure:
    what = _name(report, cell)
    if ratio.value is None or ratio.ci is None:
        raise NoNumberError(f"{what} has no ratio with an interval")
    return Figure(what, ratio.value, ratio.ci, "times", against)


def _majority(report: TrajectoryReport, figures: Sequence[Figure], name: str, caption: str) -> Finding:
    above = [figure for figure in figures if figure.low > 1]
    below = [figure for figure in figures if figure.high < 1]
    half = len(figures) / 2
    outcome = decided(confirmed=len(above) > half and not below, refuted=len(below) > half and not above)
    least, most = (pick(figures, key=lambda figure: figure.value) for pick in (min, max))
    sentence = (
        f"Of {len(figures)} cells of {report.prompts} prompts each, {len(above)} are above 1 and {len(below)} below. "
        f"They range from {least} ({least.what}) to {most} ({most.what})."
    )
    return Finding(outcome, sentence, tuple(figures), (bars(name, caption, figures),))
