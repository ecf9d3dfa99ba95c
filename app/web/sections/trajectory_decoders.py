"""How the decoders were run, and how far the models are after a decoder’s cut."""

from __future__ import annotations

from app.kinds.trajectory.report import TrajectoryReport
from app.reports.blocks import Cell, Column, Table
from app.web import format as fmt
from app.web.charts import axis, interval_strip
from app.web.scales import LinearScale
from app.web.sections.trajectory_words import LETTERS, mean_cell, shaping_name


def distances(report: TrajectoryReport) -> Table:
    """The table of distances."""
    several = len(report.candidates) > 1
    values = [value for one in report.distances for value in (one.tv.mean, *(one.tv.ci or ())) if value is not None]
    scale = LinearScale(0.0, max([*values, 1e-6]) * 1.05)
    rows = []
    for one in report.distances:
        name = shaping_name(one) + (f" · {LETTERS[one.candidate]}" if several else "")
        rows.append(
            (
                Cell(name),
                mean_cell(one.kl),
                mean_cell(one.infinite, percent=True),
                mean_cell(one.tv),
                Cell(
                    chart=interval_strip(
                        f"{name}: TV {fmt.estimate(one.tv.mean, one.tv.ci)}", one.tv.mean, one.tv.ci, scale
                    )
                ),
                mean_cell(one.top1, percent=True),
            )
        )
    return Table(
        caption="Distances after a decoder’s cut",
        columns=(
            Column("After", "name"),
            Column("KL(p‖q), nats"),
            Column("Infinite, %"),
            Column("TV"),
            Column("TV with 95 % interval", "chart"),
            Column("Top-1 agreement, %"),
        ),
        rows=tuple(rows),
        axis=axis(scale, "total variation, linear axis"),
    )


def decoders(report: TrajectoryReport) -> Table:
    """Which engine ran which decoder."""
    luck = {"none": "nothing is drawn", "common": "one number for all models"}
    return Table(
        caption="The decoders",
        columns=(Column("Decoder", "name"), Column("Run by", "text"), Column("Chance, at the same step", "text")),
        rows=tuple(
            (
                Cell(shaping_name(run)),
                Cell("vLLM" if run.engine == "vllm" else "our loop over transformers"),
                Cell(luck[run.random]),
            )
            for run in report.decoders
        ),
    )
