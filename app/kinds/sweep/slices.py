"""Parts of the text by which a sweep is reported: its domains and kinds of token, one table each."""

from __future__ import annotations

from collections.abc import Sequence

from app.kinds.sweep.report import SweepReport, SweepSlice
from app.kinds.sweep.words import by_damage, kinds, mild_column, mild_up_to, setting, shown_places
from app.reports import format as fmt
from app.reports.blocks import Cell, Column, Table
from app.reports.domain_words import KIND, OVERLAP, unjudged
from app.reports.untrusted import visible


def domains(report: SweepReport) -> Table:
    """How far each domain goes, and what it loses at the settings where the whole text stops being mild and where the
    sweep ends; no row where none can be judged alone."""
    return _table(report, "By domain", "Domain", [] if unjudged(report.domains) else by_damage(report, report.domains))


def domains_note(report: SweepReport) -> str:
    """How they are judged; where none can be judged alone that alone, empty where there is none."""
    if not report.domains:
        return ""
    if line := unjudged(report.domains):
        return line
    few = _few([*report.domains.values()], "domain")
    return f"Each domain is judged as the whole text is, by the upper limit of its own excess KL.{few}"


def token_classes(report: SweepReport) -> Table:
    """The same of each kind of token."""
    rows = kinds(report)
    return _table(report, "By kind of the predicted token", "Kind", [] if unjudged(dict(rows), KIND) else rows)


def token_classes_note(report: SweepReport) -> str:
    """How they are judged, and which are not in the text; where none can be judged alone, that alone;
    empty where there is nothing to say."""
    found, rows = report.token_classes, kinds(report)
    if not rows:
        return ""
    absent = f" Not in this text: {', '.join(map(visible, found.absent))}." if found.absent else ""
    if line := unjudged(dict(rows), KIND):
        return f"{line}{absent}"
    return (
        f"Each kind is judged as the whole text is, by the upper limit of its own excess KL. {OVERLAP}"
        f"{_few([part for _, part in rows], KIND)} {unadjusted(rows)}{absent}"
    )


def unadjusted(rows: Sequence[tuple[str, SweepSlice]]) -> str:
    """What so many kinds mean for their intervals, of which one at least is there."""
    with_interval = sum(not part.note for _, part in rows)
    adjusted = "" if with_interval == 1 else f", not adjusted for the {with_interval} kinds that have one"
    return f"Each interval is a 95 % one of its own{adjusted}."


def _few(parts: Sequence[SweepSlice], what: str) -> str:
    if not any(part.note for part in parts):
        return ""
    return f" A {what} in fewer than six documents has no interval: how far it stays mild cannot be judged."


def _table(report: SweepReport, caption: str, column: str, parts: Sequence[tuple[str, SweepSlice]]) -> Table:
    values = [point.value for point in report.points]
    shown = shown_places(report)
    rows = []
    for name, part in parts:
        cells = [
            Cell(visible(name), fmt.counted(part.documents, "document")),
            Cell(mild_up_to(part), visible(part.note), strong=True),
        ]
        for place in shown:
            for mean in (part.kl[place], part.perplexity_ratio[place]):
                found = fmt.estimate(mean.mean, mean.ci)
                cells.append(Cell(found.value, found.interval or ""))
        rows.append((*cells, Cell(fmt.count(part.tokens))))
    return Table(
        caption=caption,
        columns=(
            Column(column, "name"),
            Column(mild_column(report)),
            *(
                Column(f"{quantity} at {setting(report, values[place])}")
                for place in shown
                for quantity in ("KL, nats,", "PPL ratio")
            ),
            Column("Tokens"),
        ),
        rows=tuple(rows),
    )
