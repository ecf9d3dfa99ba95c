"""What parts of the text have beside the columns of their table: each metric of the whole, for those who unfold it."""

from __future__ import annotations

from collections.abc import Iterable

from app.contracts.report import Agreement, DeltaP, Divergence, DomainReport, Entropy, Perplexity, Slice
from app.web import format as fmt
from app.web.sections.estimates import estimate_cell
from app.web.tables import Cell, Column, Table

Part = Slice | DomainReport
Row = tuple[Cell, ...]


def further(caption: str, heading: str, parts: Iterable[tuple[str, Part]]) -> tuple[Table, ...]:
    """Two tables of the parts that have all blocks: what was lost, and how the predictions rank; none of an older
    report. Names are trusted."""
    lost: list[Row] = []
    ranked: list[Row] = []
    for name, part in parts:
        if part.divergence and part.delta_p and part.perplexity and part.agreement and part.entropy:
            lost.append((Cell(name), *_lost(part.divergence, part.delta_p)))
            ranked.append((Cell(name), *_ranked(part.agreement, part.entropy, part.perplexity)))
    if not lost:
        return ()
    return (
        Table(
            caption=f"{caption}: divergence, and change of the observed token’s probability",
            columns=(
                Column(heading, "name"),
                Column("KL(q‖p), nats"),
                Column("JS, nats"),
                Column("TV"),
                Column("KL p99, nats"),
                Column("Δp"),
                Column("Δp, root mean square"),
            ),
            rows=tuple(lost),
        ),
        Table(
            caption=f"{caption}: ranking, entropy and perplexity",
            columns=(
                Column(heading, "name"),
                Column("Top-5 overlap, %"),
                Column("Top-10 overlap, %"),
                Column("Expected rank"),
                Column("Entropy of p, nats"),
                Column("Entropy of q, nats"),
                Column("Perplexity of p"),
                Column("Perplexity of q"),
            ),
            rows=tuple(ranked),
        ),
    )


def _lost(divergence: Divergence, delta_p: DeltaP) -> Row:
    return (
        estimate_cell(divergence.reverse_kl),
        estimate_cell(divergence.js),
        estimate_cell(divergence.tv),
        Cell(fmt.number(divergence.kl.p99)),
        estimate_cell(delta_p),
        Cell(fmt.number(delta_p.rms)),
    )


def _ranked(agreement: Agreement, entropy: Entropy, perplexity: Perplexity) -> Row:
    return (
        estimate_cell(agreement.top5_overlap, percent=True),
        estimate_cell(agreement.top10_overlap, percent=True),
        estimate_cell(agreement.expected_rank),
        estimate_cell(entropy.reference),
        estimate_cell(entropy.candidate),
        Cell(fmt.number(perplexity.reference, 4)),
        Cell(fmt.number(perplexity.candidate, 4)),
    )
