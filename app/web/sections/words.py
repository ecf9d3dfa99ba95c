"""The worst tokens: in their text where the job let text be stored, by number where not."""

from __future__ import annotations

from dataclasses import dataclass

from app.contracts.report import WorstToken
from app.kinds.compare.report import CompareReport
from app.web import format as fmt
from app.web.heat import HeatPassage, HeatScale, heat_passage, largest_kl
from app.web.tables import Cell, Column, Table
from app.web.untrusted import visible

MAX_PASSAGES = 24
FIRST_ROWS = 15  # what is shown at once: a row takes 90 pixels on a telephone
MAX_ROWS = 50
MAX_TOKEN = 60


@dataclass(frozen=True)
class Words:
    """Passages (none where text was not stored, and `absent` says why), the heat scale's legend, and the table.

    `more` holds the rows that are folded away.
    """

    passages: tuple[HeatPassage, ...]
    legend: tuple[tuple[int, str], ...]
    table: Table
    more: Table
    absent: str
    omitted: str


def words(report: CompareReport) -> Words:
    """The worst tokens of a report."""
    scale = HeatScale.up_to(largest_kl(report.passages))
    stored = any(token.token is not None for token in report.worst_tokens)
    shown = report.worst_tokens[:MAX_ROWS]
    rest = len(report.worst_tokens) - len(shown)
    tabled = _with_text if stored else _by_number
    return Words(
        passages=tuple(heat_passage(passage, scale) for passage in report.passages[:MAX_PASSAGES]),
        legend=scale.legend,
        table=tabled("Worst tokens", shown[:FIRST_ROWS]),
        more=tabled(f"Worst tokens, {FIRST_ROWS + 1} to {len(shown)}", shown[FIRST_ROWS:]),
        absent="" if report.passages else _why_absent(report),
        omitted=f"{fmt.count(rest)} more stand in the JSON report." if rest else "",
    )


def _why_absent(report: CompareReport) -> str:
    wanted = (report.request or {}).get("store_text")
    source = report.provenance.protocol.text_source.casefold()
    if not report.worst_tokens:
        return "No position was worse than another: there are no worst tokens to show."
    if wanted is False:
        reason = "the job asked that no text be stored"
    elif source.startswith(("hub", "file")):
        reason = "text of files and hub data sets is stored only where the job asks for it"
    else:
        reason = "the job did not allow text to be stored"
    return (
        f"The text itself is not in this report: {reason} (store_text). "
        "Document, position and token id are enough to find each place in the original."
    )


def _with_text(caption: str, tokens: tuple[WorstToken, ...]) -> Table:
    return Table(
        caption=caption,
        columns=(
            Column("Observed token", "code"),
            Column("KL, nats"),
            Column("p → q of it"),
            Column("Δp"),
            Column("Reference’s first choice", "code"),
            Column("Candidate’s", "code"),
            Column("Document", "text"),
            Column("Position"),
        ),
        rows=tuple(
            (
                Cell(_quoted(token.token)),
                Cell(fmt.number(token.kl), strong=True),
                Cell(_change(token)),
                Cell(fmt.signed(token.delta_p)),
                Cell(_quoted(token.reference_top)),
                Cell(_quoted(token.candidate_top)),
                Cell(visible(token.document), visible(token.domain)),
                Cell(fmt.count(token.position)),
            )
            for token in tokens
        ),
    )


def _by_number(caption: str, tokens: tuple[WorstToken, ...]) -> Table:
    return Table(
        caption=caption,
        columns=(
            Column("Document", "name"),
            Column("Domain", "text"),
            Column("Position"),
            Column("Token id"),
            Column("KL, nats"),
            Column("p → q of it"),
            Column("Δp"),
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
    )


def _quoted(token: str | None) -> str:
    """A token with its spaces made visible, they are part of it; a very long one is cut."""
    if token is None:
        return fmt.NONE
    text = visible(token).replace(" ", "·")
    return text if len(text) <= MAX_TOKEN else f"{text[:MAX_TOKEN]}… ({fmt.count(len(token))} characters)"


def _change(token: WorstToken) -> str:
    return f"{fmt.number(token.probability_reference, 2)} → {fmt.number(token.probability_candidate, 2)}"
