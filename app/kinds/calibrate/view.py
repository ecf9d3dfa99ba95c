"""The report of a calibration as blocks: is it served, what each calibrator saves, what the chosen one changes."""

from __future__ import annotations

from dataclasses import replace

from app.contracts.profile import Before, Cell, TableRow
from app.contracts.report import Mean
from app.kinds.calibrate.calibrators import named
from app.kinds.calibrate.report import CalibrateReport
from app.reports import format as fmt
from app.reports.blocks import Block, Column, Figure, Figures, Items, Note, Section, Table, fold
from app.reports.blocks import Cell as Shown
from app.reports.charts.marks import Guide, axis, change_strip, interval_strip
from app.reports.classes import OVER_WINDOWS, listed
from app.reports.common import closing, document_sets, headline, title
from app.reports.estimates import estimate_cell
from app.reports.scales import LinearScale, LogScale
from app.reports.untrusted import visible
from app.reports.verdict import heading as severity_of

_MOST_ROWS = 9  # that the short output of a terminal has room for
_SETS = {"fit": "fitted", "choose": "stops the fit and chooses", "test": "read once: decides and is reported"}


def blocks(report: CalibrateReport) -> list[Block]:
    """What the report shows, first whether the correction is served."""
    chosen = next(row for row in report.test.table if row.chosen)
    calibrators = _calibrators(report)
    every = fold("Every calibrator on every domain", [_matrix(report)])
    return [
        title(report, what="calibration report", heading=heading(report), preposition="towards"),
        Section("served", heading(report), _served(report, chosen), "Served"),
        Section("calibrators", "Calibrators", [replace(calibrators, brief=len(calibrators.rows) <= _MOST_ROWS)]),
        Section("domains", "Domains", [_domains(report, chosen), Note(domains_note(report, chosen)), *every]),
        Section("effects", "What else changes", [_effects(report)], "Effects"),
        headline(
            report,
            chart_title="Excess KL of the calibrated model over the noise floor",
            sentence=left(report),
            nav="What is left",
        ),
        Section("protocol", "Protocol", [document_sets(report.sets, _SETS), Note(_protocol(report))]),
        *closing(report),
    ]


def heading(report: CalibrateReport) -> str:
    """Whether the correction has proven itself, so that it may serve."""
    return "Proven" if report.test.passed else "Not served"


def _served(report: CalibrateReport, chosen: TableRow) -> list[Block]:
    passed = report.test.passed
    reasons = tuple(visible(f"{reason[:1].upper()}{reason[1:]}.") for reason in report.test.reasons)
    return [
        Note(outcome(report), "Served" if passed else "Not served", "good" if passed else "bad", brief=True),
        *([Items(reasons, "Why not", brief=True)] if reasons else []),
        Figures(_figures(report, chosen), brief=True),
    ]


def outcome(report: CalibrateReport) -> str:
    """What is served because of this job, and how much damage that leaves."""
    target = f" on {report.deployment}" if report.deployment else ""
    profile = f"{report.profile} ({named(report.calibrator)})"
    served = f"Identity is served{target}, not {profile}."
    if report.test.passed:
        served = f"Profile {profile} may be served{target}: every test domain proves it."
    return visible(f"{served} Raw, the damage is {report.raw_severity}; calibrated, it is {severity_of(report)}.")


def left(report: CalibrateReport) -> str:
    """What remains of the damage, beside what it was."""
    now, was = report.divergence.kl, report.raw.divergence.kl
    return (
        f"Calibrated, it is {fmt.estimate(now.mean, now.ci)} nats per token from the reference over all test documents "
        f"({severity_of(report)}); raw it was {fmt.estimate(was.mean, was.ci)} ({report.raw_severity})."
    )


def _figures(report: CalibrateReport, chosen: TableRow) -> tuple[Figure, ...]:
    own = chosen.own
    saved, kl = estimate_cell(own.saved), estimate_cell(own.calibrated)
    least, worst = min(chosen.domains.items(), key=lambda item: item[1].saved_share or 0.0, default=("", None))
    fitted = f"fitted domains together, {fmt.count(own.tokens)} test tokens"
    return (
        Figure("KL removed", _share(own), "% of the raw KL", "", fitted),
        Figure("Saved", saved.text, "nats per token", saved.note, "raw − calibrated, paired"),
        Figure("KL", kl.text, "nats per token", kl.note, f"{fmt.number(own.raw.mean)} before"),
        Figure("Least helped domain", _share(worst), f"% of its KL removed, below 0: worse: {visible(least)}", "", ""),
    )


def _calibrators(report: CalibrateReport) -> Table:
    rows = sorted(report.test.table, key=lambda row: -(row.own.saved.mean or 0.0))
    with_other = any(row.other is not None for row in rows)
    scale = LinearScale.around_zero(*(row.own.saved for row in rows))
    return Table(
        caption="What each calibrator saves on the fitted domains of the test",
        columns=(
            Column("Calibrator", "name"),
            Column("Saved, nats"),
            Column("Saved with 95 % interval", "chart"),
            Column("% of raw KL"),
            *([Column("Other domains, % of raw KL", priority=1)] if with_other else []),
            Column("KL in the choice", priority=3),
            Column("Adds, µs per token", priority=2),
            Column("Size", priority=2),
        ),
        rows=tuple(
            (
                Shown(visible(named(row.calibrator)), "chosen" if row.chosen else "", strong=row.chosen),
                estimate_cell(row.own.saved),
                _strip(row, scale),
                Shown(_share(row.own)),
                *([Shown(_share(row.other))] if with_other else []),
                Shown(fmt.number(row.choose_kl, 4)),
                Shown(fmt.number(row.microseconds_per_token, 2)),
                Shown(fmt.size(row.bytes)),
            )
            for row in rows
        ),
        axis=axis(scale, "saved nats per token, linear axis"),
        style="stack strips",
    )


def _strip(row: TableRow, scale: LinearScale) -> Shown:
    saved = row.own.saved
    spoken = f"{visible(row.calibrator)}: saves {fmt.estimate(saved.mean, saved.ci)} nats"
    return Shown(chart=interval_strip(spoken, saved.mean, saved.ci, scale, [Guide(0.0, "base")]))


def _share(cell: Cell | None) -> str:
    return fmt.NONE if cell is None or cell.saved_share is None else fmt.percent(cell.saved_share, 2)


def _domains(report: CalibrateReport, chosen: TableRow) -> Table:
    cells = sorted(chosen.domains.items(), key=lambda item: -(item[1].raw.mean or 0.0))
    scale = LogScale.around(*[value for _, cell in cells for value in (cell.raw.mean, cell.calibrated.mean) if value])
    return Table(
        caption=f"By domain: {visible(named(chosen.calibrator))}",
        columns=(
            Column("Domain", "name"),
            Column("KL before"),
            Column("KL after"),
            Column("Before → after", "chart"),
            Column("Saved, nats"),
            Column("% of raw KL"),
            Column("Tokens", priority=2),
        ),
        rows=tuple(
            (
                Shown(visible(name)),
                Shown(fmt.number(cell.raw.mean)),
                Shown(fmt.number(cell.calibrated.mean)),
                _change(name, cell, scale),
                estimate_cell(cell.saved),
                Shown(_share(cell)),
                Shown(fmt.count(cell.tokens), fmt.counted(cell.documents, "document")),
            )
            for name, cell in cells
        ),
        axis=axis(scale, "KL in nats, logarithmic axis"),
        style="stack strips",
    )


def _change(name: str, cell: Cell, scale: LogScale) -> Shown:
    before, after = cell.raw.mean, cell.calibrated.mean
    spoken = f"{visible(name)}: KL from {fmt.number(before)} to {fmt.number(after)}"
    return Shown(chart=change_strip(spoken, before, after, scale))


def domains_note(report: CalibrateReport, chosen: TableRow) -> str:
    """The rule, which domains were not fitted, and which have too few documents."""
    fitted = {name for part in report.sets if part.name == "fit" for name in part.domains}
    others = [name for name in chosen.domains if name not in fitted]
    few = [name for name, cell in chosen.domains.items() if cell.saved.clusters == "windows"]
    tolerance = fmt.number(100 * report.test.tolerance, 2)
    parts = [
        f"A profile is served only if what it saves has an interval above −{tolerance} % of the raw KL on every "
        "domain, and above zero on the fitted domains together."
    ]
    parts += [f"Not fitted: {listed(others)}."] if others else []
    parts += [f"{OVER_WINDOWS.capitalize()}, of too few documents: {listed(few)}."] if few else []
    return visible(" ".join(parts))


def _matrix(report: CalibrateReport) -> Table:
    rows = report.test.table
    domains = sorted({name for row in rows for name in row.domains})

    def cell(row: TableRow, name: str) -> Shown:
        found = row.domains.get(name)
        return Shown(fmt.NONE) if found is None else estimate_cell(found.saved, strong=row.chosen)

    return Table(
        caption="Every calibrator on every test domain: saved nats per token, with 95 % interval",
        columns=(Column("Domain", "name"), *(Column(visible(row.calibrator.replace("+", " + "))) for row in rows)),
        rows=tuple((Shown(visible(name)), *(cell(row, name) for row in rows)) for name in domains),
        style="stack strips",
    )


def _effects(report: CalibrateReport) -> Table:
    """What else a calibrator changes: agreement, distance, entropy, loss."""
    found = report.test.effects
    values = (report.perplexity.reference, report.raw.perplexity.candidate, report.perplexity.candidate)
    perplexity = (Shown("Perplexity"), *(Shown(fmt.number(value, 4)) for value in values), Shown())
    rows = [perplexity]
    if found is not None:
        rows = [
            _effect("Same first choice as the reference, %", found.top1_agreement, percent=True),
            _effect("Total variation", found.tv),
            _effect("Entropy, nats", found.entropy),
            _effect("Loss of the observed token, nats", found.loss),
            perplexity,
        ]
    labels = ("Reference", "Raw", "Calibrated", "Change, with 95 % interval")
    columns = (Column("", "name"), *(Column(label) for label in labels))
    return Table("What else changes, over all test documents", columns, tuple(rows))


def _effect(name: str, block: Before, *, percent: bool = False) -> tuple[Shown, ...]:
    def mean(of: Mean | None) -> Shown:
        return Shown(fmt.NONE) if of is None else Shown(fmt.estimate(of.mean, None, percent=percent).value)

    means = (mean(block.reference), mean(block.raw), mean(block.calibrated))
    return (Shown(name), *means, estimate_cell(block.change, percent=percent))


def _protocol(report: CalibrateReport) -> str:
    return (
        f"Everything was fitted, chosen and frozen (SHA-256 {report.test.frozen[:16]}…) before the test documents were "
        f"opened, once, at {fmt.moment(report.test.opened_at)}."
    )
