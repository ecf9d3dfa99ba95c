"""Every candidate on the reference’s own texts: the common blocks of each, beside each other."""

from __future__ import annotations

from app.kinds.trajectory.report import CandidateRun, TrajectoryReport
from app.reports.blocks import Cell, Column, Table
from app.web import describe
from app.web import format as fmt
from app.web.sections.trajectory_words import LETTERS, mean_cell
from app.web.untrusted import visible


def candidates(report: TrajectoryReport) -> Table:
    """One row a candidate."""
    return Table(
        caption="The candidates, on the reference’s texts",
        columns=(
            Column("", "name"),
            Column("Changed by", "text"),
            Column("Severity", "text"),
            Column("Excess KL, nats"),
            Column("KL, p99"),
            Column("Same first choice, %"),
            Column("Perplexity ratio"),
            Column("Entropy of q, nats"),
        ),
        rows=tuple(
            (
                Cell(LETTERS[index]),
                Cell(visible(describe.model(run.model))),
                Cell(run.severity),
                mean_cell(run.excess_kl),
                *_blocks(run),
            )
            for index, run in enumerate(report.candidates)
        ),
    )


def _blocks(run: CandidateRun) -> tuple[Cell, ...]:
    blocks = run.blocks
    note = f"{fmt.count(blocks.nonfinite_positions)} not finite" if blocks.nonfinite_positions else ""
    return (
        Cell(fmt.number(blocks.divergence.kl.p99), note),
        mean_cell(blocks.top1_agreement, percent=True),
        mean_cell(blocks.perplexity.ratio),
        mean_cell(blocks.entropy.candidate),
    )


def domains(report: TrajectoryReport) -> Table | None:
    """KL of every candidate by domain; none where there is one domain."""
    if len(report.domains) < 2:
        return None
    blocks = [run.blocks for run in report.candidates]
    return Table(
        caption="KL by domain of the prompts, on the reference’s texts, nats",
        columns=(
            Column("Domain", "name"),
            Column("Tokens"),
            *(Column(letter) for letter in LETTERS[: len(blocks)]),
        ),
        rows=tuple(
            (
                Cell(visible(name)),
                Cell(fmt.count(block.tokens)),
                *(
                    mean_cell(one.domains[name].divergence.kl) if name in one.domains else Cell(fmt.NONE)
                    for one in blocks
                ),
            )
            for name, block in report.domains.items()
        ),
    )
