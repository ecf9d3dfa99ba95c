"""Whether damage grows when the model reads what it wrote itself, and where along the text."""

from __future__ import annotations

from collections.abc import Sequence

from app.kinds.trajectory.report import Cell as Entry
from app.kinds.trajectory.report import TrajectoryReport
from app.reports.blocks import Cell, Column, Table
from app.web import format as fmt
from app.web.charts import Guide, axis, change_strip, interval_strip
from app.web.scales import LogScale
from app.web.sections.trajectory_words import CONCLUSIONS, LETTERS, factor, kl_means, mean_cell, row_name


def amplification(report: TrajectoryReport) -> Table:
    """The table of factors."""
    ratios = [cell.amplification.kl for cell in report.cells]
    values = [value for ratio in ratios for value in (ratio.value, *(ratio.ci or ())) if value]
    scale = LogScale.around(1.0, *values)
    rows = []
    for cell in report.cells:
        found, name = cell.amplification, row_name(report, cell)
        kl, tokens = factor(found.kl), factor(found.tokens)
        rows.append(
            (
                Cell(name),
                *(mean_cell(mean) for mean in kl_means(cell)),
                Cell(kl.value, kl.interval or "no interval", strong=True),
                Cell(chart=interval_strip(f"{name}: {kl}", found.kl.value, found.kl.ci, scale, [Guide(1.0, "base")])),
                Cell(CONCLUSIONS[found.conclusion]),
                Cell(tokens.value, tokens.interval or "no interval"),
            )
        )
    return Table(
        caption="Amplification by decoder",
        columns=(
            Column("Decoder", "name"),
            Column("KL on the reference’s text, nats"),
            Column("KL on its own text, nats"),
            Column("KL factor"),
            Column("Factor with 95 % interval", "chart"),
            Column("Decoding", "text"),
            Column("Token factor"),
        ),
        rows=tuple(rows),
        axis=axis(scale, "KL factor, logarithmic axis; the line is 1"),
    )


def amplification_note(report: TrajectoryReport) -> str:
    """Which positions the two means of `amplification` are over, and why a factor may have no interval."""
    told = "KL on either text is a mean over the positions that both texts have, as the factor is."
    ratios = [ratio for cell in report.cells for ratio in (cell.amplification.kl, cell.amplification.tokens)]
    if any(ratio.value is not None and ratio.ci is None for ratio in ratios):
        told += (
            " A factor has no interval where fewer than six prompts (all, of fewer; two at least) tell of it: for the "
            "KL factor their two texts must part and both go on, for the token factor tokens must differ and single "
            "steps disagree."
        )
    return told


def along(report: TrajectoryReport, cells: Sequence[Entry]) -> Table:
    """KL on both texts by position, of these cells."""
    values = [
        mean.mean
        for cell in cells
        for band in cell.along
        for mean in (band.kl_reference_text, band.kl_candidate_text)
        if mean.mean
    ]
    scale = LogScale.around(*(values or [1.0]))
    rows = []
    for cell in cells:
        for band in cell.along:
            place = f"{fmt.count(band.first)}\u2060–\u2060{fmt.count(band.last)}"  # does not break
            name = f"{LETTERS[cell.candidate]} · {place}" if len(cells) > 1 else place
            rows.append(
                (
                    Cell(name),
                    mean_cell(band.kl_reference_text),
                    mean_cell(band.kl_candidate_text),
                    Cell(
                        chart=change_strip(
                            f"{name}: from {fmt.number(band.kl_reference_text.mean)} to "
                            f"{fmt.number(band.kl_candidate_text.mean)} nats",
                            band.kl_reference_text.mean,
                            band.kl_candidate_text.mean,
                            scale,
                        )
                    ),
                    mean_cell(band.disagreement, percent=True),
                    mean_cell(band.entropy_reference),
                    mean_cell(band.entropy_candidate),
                )
            )
    return Table(
        caption="By position in the generated text",
        columns=(
            Column("Tokens", "name"),
            Column("KL on the reference’s text, nats"),
            Column("KL on its own text, nats"),
            Column("From the reference’s text ○ to its own ●", "chart"),
            Column("Tokens that differ, %"),
            Column("Entropy of p on its text, nats"),
            Column("Entropy of q on its text, nats"),
        ),
        rows=tuple(rows),
        axis=axis(scale, "KL in nats a token, logarithmic axis; ring: reference’s text, dot: its own"),
    )
