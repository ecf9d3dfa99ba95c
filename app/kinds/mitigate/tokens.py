"""The candidate's worst tokens, before and after treatment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from app.contracts.report import Passage
from app.kinds.mitigate.report import ChangedToken, MitigateReport
from app.reports import format as fmt
from app.reports.blocks import Block, Cell, Column, Columns, Note, Passages, Section, Table, filled, fold
from app.reports.charts.marks import axis, change_strip
from app.reports.heat import HeatScale, heat_passage, largest_kl, quoted
from app.reports.scales import LogScale
from app.reports.untrusted import visible

_FIRST_ROWS = 15
_MAX_ROWS = 50
_MAX_PASSAGES = 12


def worst_tokens(report: MitigateReport) -> list[Block]:
    """Their text and a table; nothing if nothing is recommended."""
    if not report.worst_tokens:
        return []
    more = report.worst_tokens[_FIRST_ROWS:_MAX_ROWS]
    blocks = [
        Note(_note(report)),
        *_pairs(report),
        _table(report, "The candidate’s worst tokens, before and after", report.worst_tokens[:_FIRST_ROWS]),
        *fold(f"{len(more)} more of the worst tokens", filled(_table(report, "More of them", more))),
    ]
    return [Section("tokens", "Worst tokens, before and after", blocks, "Worst tokens")]


def _note(report: MitigateReport) -> str:
    better = sum(token.kl_after < token.kl for token in report.worst_tokens)
    hidden = "" if report.passages else " The text itself is not in this report (store_text)."
    return (
        f"Of the candidate’s {len(report.worst_tokens)} worst test tokens, {better} are better after treatment. Some "
        f"of that gain is chance: they were picked because the candidate is worst there.{hidden}"
    )


def _pairs(report: MitigateReport) -> Iterator[Block]:
    """Each text before and after, side by side, in colours of one scale."""
    if not report.passages:
        return
    scale = HeatScale.up_to(largest_kl([rescue.before for rescue in report.passages]))

    def drawn(when: str, passage: Passage) -> list[Block]:
        shown = heat_passage(passage, scale)
        return [Passages((), (replace(shown, caption=f"{when} · {shown.caption}"),))]

    yield Passages(scale.legend, ())
    for rescue in report.passages[:_MAX_PASSAGES]:
        yield Columns((drawn("Before", rescue.before), drawn("After", rescue.after)))


def _table(report: MitigateReport, caption: str, tokens: Sequence[ChangedToken]) -> Table:
    stored = any(token.token is not None for token in report.worst_tokens)
    scale = LogScale.around(*[kl for token in report.worst_tokens for kl in (token.kl, token.kl_after)])
    tops = ("Reference’s first choice", "Before", "After") if stored else ()
    return Table(
        caption=caption,
        columns=(
            Column("Observed token", "code") if stored else Column("Token id", "name"),
            Column("KL before, nats"),
            Column("KL after, nats"),
            Column("Before → after", "chart"),
            Column("p, before → after of it", priority=2),
            *(Column(label, "code", priority=1) for label in tops),
            Column("Document", "text", priority=2),
            Column("Position", priority=2),
        ),
        rows=tuple(_row(token, scale, stored=stored) for token in tokens),
        axis=axis(scale, "KL in nats, logarithmic axis"),
        style="stack strips worst-tokens",
    )


def _row(token: ChangedToken, scale: LogScale, *, stored: bool) -> tuple[Cell, ...]:
    before, after = fmt.number(token.kl), fmt.number(token.kl_after)
    reference, candidate, treated = (
        fmt.number(one, 2)
        for one in (token.probability_reference, token.probability_candidate, token.probability_after)
    )
    tops = (token.reference_top, token.candidate_top, token.top_after) if stored else ()
    return (
        Cell(quoted(token.token) if stored else str(token.token_id)),
        Cell(before),
        Cell(after, strong=True),
        Cell(chart=change_strip(f"KL from {before} to {after}", token.kl, token.kl_after, scale)),
        Cell(f"{reference}, {candidate} → {treated}"),
        *(Cell(quoted(top)) for top in tops),
        Cell(visible(token.document), visible(token.domain)),
        Cell(fmt.count(token.position)),
    )
