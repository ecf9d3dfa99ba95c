"""What a calibrate job found: is it served, what each calibrator saves where, and what else the chosen one changes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from app.contracts.profile import Before, Cell, TableRow
from app.contracts.report import Mean
from app.kinds.calibrate.calibrators import FITTED
from app.kinds.calibrate.report import CalibrateReport
from app.reports.blocks import Cell as Shown
from app.reports.blocks import Column, Figure, Table
from app.web import format as fmt
from app.web.charts import Guide, axis, change_strip, interval_strip
from app.web.scales import LinearScale, LogScale
from app.web.sections.classes import OVER_WINDOWS
from app.web.sections.verdict import heading as severity_of
from app.web.untrusted import visible


@dataclass(frozen=True)
class Calibration:
    """Texts, figures and tables of the page."""

    passed: bool
    sentence: str
    outcome: str
    reasons: tuple[str, ...]
    figures: tuple[Figure, ...]
    calibrators: Table
    domains: Table
    domain_note: str
    matrix: Table
    effects: Table
    flattening: str
    sampled: tuple[Table, ...]
    sets: Table
    protocol: str


def heading(report: CalibrateReport) -> str:
    """Whether the correction has proven itself, so that it may serve."""
    return "Proven" if report.test.passed else "Not served"


def calibration(report: CalibrateReport) -> Calibration:
    """The view of a report."""
    chosen = next(row for row in report.test.table if row.chosen)
    return Calibration(
        passed=report.test.passed,
        sentence=visible(report.verdict),
        outcome=outcome(report),
        reasons=tuple(visible(_sentence(reason)) for reason in report.test.reasons),
        figures=_figures(report, chosen),
        calibrators=_calibrators(report),
        domains=_domains(report, chosen),
        domain_note=_domain_note(report),
        matrix=_matrix(report),
        effects=_effects(report),
        flattening=flattening(report),
        sampled=_sampled(report),
        sets=_sets(report),
        protocol=_protocol(report),
    )


def named(calibrator: str) -> str:
    """`lowrank+confidence` in words."""
    return ", then ".join(FITTED[part].label if part in FITTED else part for part in calibrator.split("+"))


def outcome(report: CalibrateReport) -> str:
    """What is served because of this job."""
    target = f" on {report.deployment}" if report.deployment else ""
    if report.test.passed:
        return visible(f"Profile {report.profile} may be served{target}: every test domain proves it.")
    return visible(f"Identity is served{target}, not {report.profile}.")


def left(report: CalibrateReport) -> str:
    """What remains of the damage, beside what it was."""
    now, was = report.divergence.kl, report.raw.divergence.kl
    return (
        f"Calibrated, it is {fmt.estimate(now.mean, now.ci)} nats a token from the reference over all test documents "
        f"({severity_of(report)}); raw it was {fmt.estimate(was.mean, was.ci)} ({report.raw_severity})."
    )


def flattening(report: CalibrateReport) -> str:
    """Whether the correction does more than make all distributions flatter or sharper."""
    effects = report.test.effects
    if effects is None:
        return ""
    parts = []
    change, reference = effects.entropy.change.mean, effects.entropy.reference
    if change is not None and reference is not None and effects.entropy.raw.mean is not None:
        gap = (reference.mean or 0.0) - effects.entropy.raw.mean
        way = "flatter" if change > 0 else "sharper"
        towards = "towards" if gap * change > 0 else "away from"
        parts.append(
            f"Distributions become {way} by {fmt.number(abs(change))} nats of entropy, {towards} the reference "
            f"(which is {fmt.number(abs(gap))} nats {'above' if gap > 0 else 'below'} the raw model)."
        )
    if effects.temperature_share is not None:
        parts.append(
            f"One temperature alone saves {fmt.percent(max(0.0, effects.temperature_share), 2)} % of what this "
            "correction saves: that much of it is flattening or sharpening everything alike."
        )
    return " ".join(parts)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _figures(report: CalibrateReport, chosen: TableRow) -> tuple[Figure, ...]:
    own = chosen.own
    saved = fmt.estimate(own.saved.mean, own.saved.ci)
    worst = max(chosen.domains.items(), key=lambda item: -(item[1].saved_share or 0.0), default=None)
    return (
        Figure(
            "KL removed",
            fmt.NONE if own.saved_share is None else fmt.percent(own.saved_share, 2),
            "% of the raw KL",
            "",
            f"fitted domains together, {fmt.count(own.tokens)} test tokens",
        ),
        Figure("Saved", saved.value, "nats a token", saved.interval or "no interval", "raw − calibrated, paired"),
        Figure(
            "KL",
            fmt.number(own.calibrated.mean),
            "nats a token",
            fmt.estimate(own.calibrated.mean, own.calibrated.ci).interval or "no interval",
            f"{fmt.number(own.raw.mean)} before",
        ),
        Figure(
            "Least helped domain",
            fmt.NONE if worst is None or worst[1].saved_share is None else fmt.percent(worst[1].saved_share, 2),
            "% of its KL removed",
            "",
            "" if worst is None else visible(worst[0]),
        ),
    )


def saved_scale(cells: Iterable[Cell]) -> LinearScale:
    """An axis of saved nats that holds zero, every mean and every limit."""
    values = [0.0]
    for cell in cells:
        values += [value for value in (cell.saved.mean, *(cell.saved.ci or ())) if value is not None]
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 1e-6
    return LinearScale(low - margin, high + margin)


def _strip(title: str, cell: Cell, scale: LinearScale) -> Shown:
    saved = cell.saved
    spoken = f"{title}: saves {fmt.estimate(saved.mean, saved.ci)} nats"
    return Shown(chart=interval_strip(spoken, saved.mean, saved.ci, scale, [Guide(0.0, "base")]))


def _calibrators(report: CalibrateReport) -> Table:
    rows = sorted(report.test.table, key=lambda row: -(row.own.saved.mean or 0.0))
    with_other = any(row.other is not None for row in rows)
    scale = saved_scale(cell for row in rows for cell in (row.own, row.other) if cell is not None)
    columns = [
        Column("Calibrator", "name"),
        Column("Saved, nats"),
        Column("Saved with 95 % interval", "chart"),
        Column("% of raw KL"),
        *([Column("Other domains, % of raw KL")] if with_other else []),
        Column("KL to choose by"),
        Column("Adds, µs a token"),
        Column("Size"),
    ]
    return Table(
        caption="What each calibrator saves on the fitted domains of the test",
        columns=tuple(columns),
        rows=tuple(
            (
                Shown(visible(named(row.calibrator)), "chosen" if row.chosen else "", strong=row.chosen),
                _estimate(row.own.saved),
                _strip(visible(row.calibrator), row.own, scale),
                Shown(_share(row.own)),
                *([Shown(fmt.NONE if row.other is None else _share(row.other))] if with_other else []),
                Shown(fmt.number(row.choose_kl, 4)),
                Shown(fmt.number(row.microseconds_per_token, 2)),
                Shown(fmt.size(row.bytes)),
            )
            for row in rows
        ),
        axis=axis(scale, "saved nats a token, linear axis"),
    )


def _share(cell: Cell) -> str:
    return fmt.NONE if cell.saved_share is None else fmt.number(100 * cell.saved_share, 2)


def _estimate(mean: Mean, *, percent: bool = False, strong: bool = True) -> Shown:
    text = fmt.estimate(mean.mean, mean.ci, percent=percent)
    return Shown(text.value, text.interval or "no interval", strong=strong)


def _domains(report: CalibrateReport, chosen: TableRow) -> Table:
    cells = chosen.domains
    values = [value for cell in cells.values() for value in (cell.raw.mean, cell.calibrated.mean) if value]
    kl, saved = LogScale.around(*values), saved_scale(cells.values())
    fitted = {name for part in report.sets if part.name == "fit" for name in part.domains}
    return Table(
        caption=f"By domain: {visible(named(chosen.calibrator))}",
        columns=(
            Column("Domain", "name"),
            Column("KL before"),
            Column("KL after"),
            Column("Before → after", "chart"),
            Column("Saved, nats"),
            Column("Saved with 95 % interval", "text"),
            Column("% of raw KL"),
            Column("Tokens"),
        ),
        rows=tuple(
            (
                Shown(visible(name), _domain_kind(cell, fitted=name in fitted)),
                Shown(fmt.number(cell.raw.mean)),
                Shown(fmt.number(cell.calibrated.mean)),
                Shown(
                    chart=change_strip(
                        f"{visible(name)}: KL from {fmt.number(cell.raw.mean)} to {fmt.number(cell.calibrated.mean)}",
                        cell.raw.mean,
                        cell.calibrated.mean,
                        kl,
                    )
                ),
                Shown(fmt.number(cell.saved.mean), strong=True),
                _strip(visible(name), cell, saved),
                Shown(_share(cell)),
                Shown(fmt.count(cell.tokens), f"{fmt.count(cell.documents)} document{_s(cell.documents)}"),
            )
            for name, cell in sorted(cells.items(), key=lambda item: -(item[1].raw.mean or 0.0))
        ),
        axis=axis(kl, "KL in nats, logarithmic axis"),
    )


def _s(count: int) -> str:
    return "" if count == 1 else "s"


def _domain_kind(cell: Cell, *, fitted: bool) -> str:
    notes = [] if fitted else ["not fitted"]
    if cell.saved.clusters == "windows":
        notes.append(OVER_WINDOWS)
    return ", ".join(notes)


def _domain_note(report: CalibrateReport) -> str:
    tolerance = fmt.number(100 * report.test.tolerance, 2)
    return (
        f"A profile is served only where the interval of every domain lies above −{tolerance} % of its raw KL, and "
        "that of the fitted domains together above zero."
    )


def _matrix(report: CalibrateReport) -> Table:
    rows: Sequence[TableRow] = report.test.table
    domains = sorted({name for row in rows for name in row.domains})
    return Table(
        caption="Every calibrator on every test domain: saved nats a token, with 95 % interval",
        columns=(Column("Domain", "name"), *(Column(visible(row.calibrator.replace("+", " + "))) for row in rows)),
        rows=tuple(
            (
                Shown(visible(name)),
                *(
                    _estimate(row.domains[name].saved, strong=row.chosen) if name in row.domains else Shown(fmt.NONE)
                    for row in rows
                ),
            )
            for name in domains
        ),
    )


def _before_row(name: str, block: Before, *, percent: bool = False) -> tuple[Shown, ...]:
    def cell(mean: Mean | None) -> Shown:
        return Shown(fmt.NONE) if mean is None else Shown(fmt.estimate(mean.mean, None, percent=percent).value)

    return (
        Shown(name),
        cell(block.reference),
        cell(block.raw),
        cell(block.calibrated),
        _estimate(block.change, percent=percent),
    )


_BEFORE = (
    Column("", "name"),
    Column("Reference"),
    Column("Raw"),
    Column("Calibrated"),
    Column("Change, with 95 % interval"),
)


def _effects(report: CalibrateReport) -> Table:
    effects = report.test.effects
    rows: list[tuple[Shown, ...]] = []
    if effects is not None:
        rows = [
            _before_row("Same first choice as the reference, %", effects.top1_agreement, percent=True),
            _before_row("Total variation", effects.tv),
            _before_row("Entropy, nats", effects.entropy),
            _before_row("Loss of the observed token, nats", effects.loss),
        ]
    rows.append(
        (
            Shown("Perplexity"),
            Shown(fmt.number(report.perplexity.reference, 4)),
            Shown(fmt.number(report.raw.perplexity.candidate, 4)),
            Shown(fmt.number(report.perplexity.candidate, 4)),
            Shown(""),
        )
    )
    return Table(caption="What else changes, over all test documents", columns=_BEFORE, rows=tuple(rows))


def _sampled(report: CalibrateReport) -> tuple[Table, ...]:
    effects = report.test.effects
    return tuple(
        Table(
            caption=f"After temperature {fmt.short(block.sampling.temperature)} and top-p "
            f"{fmt.short(block.sampling.top_p)}, over {fmt.count(block.tokens)} test tokens",
            columns=_BEFORE,
            rows=(
                _before_row("Total variation", block.tv),
                _before_row("JS, nats", block.js),
                _before_row("Entropy, nats", block.entropy),
            ),
        )
        for block in (effects.sampled if effects is not None else ())
    )


def _sets(report: CalibrateReport) -> Table:
    what = {"fit": "fitted", "choose": "stops the fit and chooses", "test": "read once: decides and is reported"}
    return Table(
        caption="Three sets that share no document",
        columns=(
            Column("Set", "name"),
            Column("", "text"),
            Column("Documents"),
            Column("Tokens"),
            Column("Domains", "text"),
        ),
        rows=tuple(
            (
                Shown(part.name),
                Shown(what[part.name]),
                Shown(fmt.count(part.documents)),
                Shown(fmt.count(part.tokens)),
                Shown(visible(", ".join(part.domains))),
            )
            for part in report.sets
        ),
    )


def _protocol(report: CalibrateReport) -> str:
    return (
        f"Everything was fitted, chosen and frozen (SHA-256 {report.test.frozen[:16]}…) before the test documents were "
        f"opened, once, at {fmt.moment(report.test.opened_at)}."
    )
