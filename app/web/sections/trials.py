"""Where the damage sits, what was tried for it, what did not help, and on which documents."""

from __future__ import annotations

from app.contracts.report import Mean
from app.kinds.mitigate import treatments
from app.kinds.mitigate.report import FrontPoint, MitigateReport, Trial
from app.reports.blocks import Cell, Column, Table
from app.web import format as fmt
from app.web.charts import Guide, axis, interval_strip, share_bar
from app.web.scales import LinearScale
from app.web.untrusted import visible

_OUTCOMES = {
    "front": "on the front",
    "dominated": "beaten",
    "no_gain": "no gain",
    "over_budget": "over budget",
    "promoted": "went on",
    "not_promoted": "not followed",
    "not_applicable": "not applicable",
}


def described(point: FrontPoint | Trial) -> str:
    """Its treatments in words; `the candidate as it is` where there is none."""
    return visible(treatments.described(point.treatments, point.recipe))


def wound(report: MitigateReport) -> Table:
    """The parts, most damaged first."""
    measured = report.wound.how == "restored"
    columns = [Column("Part", "name")]
    if measured:
        columns.append(Column("Saved where it is restored, nats"))
    columns += [Column("Weights changed by"), Column("Share"), Column("Share", "chart")]
    rows = []
    for part in report.wound.parts:
        cells = [Cell(visible(part.name))]
        if measured:
            cells.append(_mean(part.saved))
        error = part.reconstruction_error
        cells += [
            Cell(fmt.NONE if error is None else f"{fmt.number(100 * error, 3)} %"),
            Cell(fmt.NONE if part.share is None else f"{fmt.number(100 * part.share, 3)} %"),
            Cell(
                chart=share_bar(f"{visible(part.name)}: {fmt.number(100 * (part.share or 0), 3)} %", part.share or 0.0)
            ),
        ]
        rows.append(tuple(cells))
    return Table(caption="Where the damage sits", columns=tuple(columns), rows=tuple(rows))


def wound_note(report: MitigateReport) -> str:
    """How the parts were found."""
    found = report.wound
    kl = fmt.estimate(found.kl.mean, found.kl.ci)
    text = f"The candidate loses {kl} nats a token on the documents to choose by. "
    text += {
        "restored": "Each part in turn was made the reference’s again while the others stayed as they are, and "
        "measured on a part of these documents; what the parts save need not add up to the whole.",
        "reconstruction_error": "The shares are of the squared error of the weights, which does not tell its effect.",
        "unknown": "Which parts of it cost most is not known.",
    }[found.how]
    return visible(f"{text} {_upper(found.note)}.") if found.note else text


def _upper(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def _mean(mean: Mean | None) -> Cell:
    if mean is None:
        return Cell(fmt.NONE)
    text = fmt.estimate(mean.mean, mean.ci)
    return Cell(text.value, text.interval or "no interval", strong=True)


def unhelpful(report: MitigateReport) -> Table:
    """Treatments that did not help, and why."""
    return Table(
        caption="What did not help, or is not in the recipe",
        columns=(Column("Treatment", "name"), Column("Why", "text"), Column("Most that it saved alone, nats")),
        rows=tuple(
            (
                Cell(one.treatment),
                Cell(visible(_upper(one.reason)) + "."),
                Cell(fmt.number(one.best_saved)),
            )
            for one in report.unhelpful
        ),
    )


def trials(report: MitigateReport) -> Table:
    """Every trial."""
    values = [0.0]
    for trial in report.trials:
        if trial.saved is not None:
            values += [value for value in (trial.saved.mean, *(trial.saved.ci or ())) if value is not None]
    margin = 0.06 * (max(values) - min(values)) or 1e-6
    scale = LinearScale(min(values) - margin, max(values) + margin)
    rows = []
    for trial in report.trials:
        saved = trial.saved
        told = fmt.estimate(None if saved is None else saved.mean, None if saved is None else saved.ci)
        rows.append(
            (
                Cell(str(trial.number)),
                Cell(described(trial), visible(trial.reason)),
                Cell(trial.rung),
                Cell(fmt.number(trial.expected_saved, 2)),
                Cell(told.value, told.interval or "", strong=trial.outcome == "front"),
                Cell(
                    chart=interval_strip(
                        f"{trial.number}: saves {told} nats",
                        None if saved is None else saved.mean,
                        None if saved is None else saved.ci,
                        scale,
                        [Guide(0.0, "base")],
                    )
                ),
                Cell(fmt.NONE if trial.bytes is None else fmt.size(trial.bytes)),
                Cell(fmt.NONE if trial.seconds is None else fmt.duration(trial.seconds)),
                Cell(_OUTCOMES[trial.outcome]),
            )
        )
    return Table(
        caption="Every trial, in the order in which it was made",
        columns=(
            Column("", "name"),
            Column("Treatment", "text"),
            Column("Rung", "text"),
            Column("Expected, nats"),
            Column("Saved, nats"),
            Column("Saved with 95 % interval", "chart"),
            Column("Size"),
            Column("Took"),
            Column("Outcome", "text"),
        ),
        rows=tuple(rows),
        axis=axis(scale, "saved nats a token, linear axis"),
    )


def trials_note(report: MitigateReport) -> str:
    """How trials were picked."""
    full = sum(trial.rung == "full" for trial in report.trials)
    return (
        f"{len(report.trials)} trials, {full} of them in full. The next one is the one of which most nats are expected "
        "a byte; cheap trials look at a quarter of the calibration text and train nothing, and only what was made and "
        "measured in full can be recommended. All of this is on the documents to choose by."
    )


def sets(report: MitigateReport) -> Table:
    """The documents."""
    what = {
        "fit": "treatments look at it",
        "choose": "finds the damage, and chooses",
        "test": "read once: what is reported of front and recommendation",
    }
    return Table(
        caption="Three sets of documents, which may share some"
        if (report.request or {}).get("allow_overlap")
        else "Three sets that share no document",
        columns=(
            Column("Set", "name"),
            Column("", "text"),
            Column("Documents"),
            Column("Tokens"),
            Column("Domains", "text"),
        ),
        rows=tuple(
            (
                Cell(part.name),
                Cell(what[part.name]),
                Cell(fmt.count(part.documents)),
                Cell(fmt.count(part.tokens)),
                Cell(visible(", ".join(part.domains))),
            )
            for part in report.sets
        ),
    )


def protocol(report: MitigateReport) -> str:
    """Budget, and how the test was kept apart."""
    budget = report.budget
    limits = []
    if budget.bytes is not None:
        limits.append(f"{fmt.count(budget.bytes)} bytes{' (the default: a quarter more)' if budget.by_default else ''}")
    if budget.bits_per_weight is not None:
        limits.append(f"{fmt.number(budget.bits_per_weight, 4)} bits a weight")
    if budget.added_latency is not None:
        limits.append(f"{fmt.number(100 * budget.added_latency, 3)} % more time a token")
    return (
        f"Budget: {', '.join(limits)}. Front, recommendation and rule were frozen (SHA-256 {report.seal.frozen[:16]}…) "
        f"before the test documents were opened, once, at {fmt.moment(report.seal.opened_at)}."
    )
