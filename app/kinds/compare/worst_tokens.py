"""The worst tokens: in their text where the job let text be stored, by number where not."""

from __future__ import annotations

from app.contracts.report import WorstToken
from app.kinds.compare.report import CompareReport
from app.reports import format as fmt
from app.reports.blocks import Block, Cell, Column, Note, Table, filled, fold
from app.reports.heat import heat, quoted
from app.reports.untrusted import visible

FIRST_ROWS = 15  # what is shown at once: a row takes 90 pixels on a telephone


def worst_tokens(report: CompareReport) -> list[Block]:
    """Passages in colour if their text was stored, and the table of the worst tokens."""
    shown = report.worst_tokens
    tabled = _with_text if any(token.token is not None for token in shown) else _by_number
    more = tabled(f"Worst tokens, {FIRST_ROWS + 1} to {len(shown)}", shown[FIRST_ROWS:])
    return [
        *([] if report.passages else [Note(_why_absent(report), kind="plain")]),
        *([heat(report.passages)] if report.passages else []),
        *filled(tabled("Worst tokens", shown[:FIRST_ROWS])),
        *fold(f"{len(more.rows)} more of the worst tokens", filled(more)),
    ]


def _why_absent(report: CompareReport) -> str:
    if not report.worst_tokens:
        return "No position was worse than another: there are no worst tokens to show."
    return (
        "The text itself is not in this report: of files and hub data sets only a job with --store-text keeps it. "
        "Document, position and token id are enough to find each place in the original."
    )


def _with_text(caption: str, tokens: tuple[WorstToken, ...]) -> Table:
    return Table(
        caption=caption,
        columns=(
            Column("Observed token", "code"),
            Column("KL, nats"),
            Column("p → q of it", priority=2),
            Column("Δp", priority=2),
            Column("Reference’s first choice", "code"),
            Column("Candidate’s", "code"),
            Column("Document", "text", priority=1),
            Column("Position", priority=1),
        ),
        rows=tuple(
            (
                Cell(quoted(token.token)),
                Cell(fmt.number(token.kl), strong=True),
                Cell(_change(token)),
                Cell(fmt.signed(token.delta_p)),
                Cell(quoted(token.reference_top)),
                Cell(quoted(token.candidate_top)),
                Cell(visible(token.document), visible(token.domain)),
                Cell(fmt.count(token.position)),
            )
            for token in tokens
        ),
        style="stack worst-tokens",
    )


def _by_number(caption: str, tokens: tuple[WorstToken, ...]) -> Table:
    return Table(
        caption=caption,
        columns=(
            Column("Document", "name"),
            Column("Domain", "text", priority=2),
            Column("Position", priority=1),
            Column("Token id"),
            Column("KL, nats"),
            Column("p → q of it", priority=2),
            Column("Δp", priority=2),
        ),
        rows=tuple(
            (
                Cell(visible(token.document)),
                Cell(visible(token.domain)),
                Cell(fmt.count(token.position)),
                Cell(str(token.token_id)),
                Cell(fmt.number(token.kl), strong=True),
                Cell(_change(token)),
                Cell(fmt.signed(token.delta_p)),
            )
            for token in tokens
        ),
        style="stack worst-tokens",
    )


def _change(token: WorstToken) -> str:
    return f"{fmt.number(token.probability_reference, 2)} → {fmt.number(token.probability_candidate, 2)}"
