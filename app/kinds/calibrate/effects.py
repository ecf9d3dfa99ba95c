"""What else a calibrator changes: agreement, entropy, loss, and how much of it is flattening alone."""

from __future__ import annotations

from app.contracts.profile import Before, SampledEffect
from app.contracts.report import Mean
from app.kinds.calibrate.report import CalibrateReport
from app.reports import format as fmt
from app.reports.blocks import Block, Cell, Column, Note, Table
from app.reports.estimates import estimate_cell

_COLUMNS = (
    Column("", "name"),
    Column("Reference"),
    Column("Raw"),
    Column("Calibrated"),
    Column("Change, with 95 % interval"),
)


def effects(report: CalibrateReport) -> list[Block]:
    """The table, and what of it one temperature does too."""
    told = flattening(report)
    table = Table("What else changes, over all test documents", _COLUMNS, _rows(report))
    return [table, *([Note(told, "Flattening")] if told else [])]


def _rows(report: CalibrateReport) -> tuple[tuple[Cell, ...], ...]:
    found = report.test.effects
    values = (report.perplexity.reference, report.raw.perplexity.candidate, report.perplexity.candidate)
    perplexity = (Cell("Perplexity"), *(Cell(fmt.number(value, 4)) for value in values), Cell())
    if found is None:
        return (perplexity,)
    return (
        _row("Same first choice as the reference, %", found.top1_agreement, percent=True),
        _row("Total variation", found.tv),
        _row("Entropy, nats", found.entropy),
        _row("Loss of the observed token, nats", found.loss),
        perplexity,
        *(row for one in found.sampled for row in _sampled(one)),
    )


def _sampled(one: SampledEffect) -> tuple[tuple[Cell, ...], ...]:
    """After a temperature and a cut."""
    at = f"at temperature {fmt.short(one.sampling.temperature)}, top-p {fmt.short(one.sampling.top_p)}"
    over = f"over {fmt.counted(one.tokens, 'test token')}"
    return (
        _row(f"Total variation {at}", one.tv, over),
        _row(f"JS, nats, {at}", one.js, over),
        _row(f"Entropy, nats, {at}", one.entropy, over),
    )


def _row(name: str, block: Before, note: str = "", *, percent: bool = False) -> tuple[Cell, ...]:
    def mean(of: Mean | None) -> Cell:
        return Cell(fmt.NONE) if of is None else Cell(fmt.estimate(of.mean, None, percent=percent).value)

    means = (mean(block.reference), mean(block.raw), mean(block.calibrated))
    return (Cell(name, note), *means, estimate_cell(block.change, percent=percent))


def flattening(report: CalibrateReport) -> str:
    """Whether the correction does more than make all distributions flatter or sharper."""
    found = report.test.effects
    if found is None:
        return ""
    parts = []
    change, reference, raw = found.entropy.change.mean, found.entropy.reference, found.entropy.raw.mean
    if change is not None and reference is not None and raw is not None:
        gap = (reference.mean or 0.0) - raw
        way = "flatter" if change > 0 else "sharper"
        towards = "towards" if gap * change > 0 else "away from"
        parts.append(
            f"Distributions become {way} by {fmt.number(abs(change))} nats of entropy, {towards} the reference "
            f"(which is {fmt.number(abs(gap))} nats {'above' if gap > 0 else 'below'} the raw model)."
        )
    if found.temperature_share is not None:
        share = fmt.percent(max(0.0, found.temperature_share), 2)
        parts.append(f"One temperature alone saves {share} % of what this correction saves.")
    return " ".join(parts)
