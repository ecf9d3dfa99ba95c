"""Where the damage is, what was tried for it, and what did not help."""

from __future__ import annotations

from app.contracts.report import Mean
from app.kinds.mitigate.front import words
from app.kinds.mitigate.report import MitigateReport, Part, Trial
from app.reports import format as fmt
from app.reports.blocks import Block, Cell, Column, Note, Table, filled, fold
from app.reports.charts.marks import Guide, axis, interval_strip, share_bar
from app.reports.estimates import estimate_cell
from app.reports.scales import LinearScale
from app.reports.untrusted import visible

_OUTCOMES = {
    "front": "on the front",
    "dominated": "beaten",
    "no_gain": "no gain",
    "over_budget": "over budget",
    "promoted": "went on",
    "not_promoted": "not followed",
    "not_applicable": "not applicable",
}
_FOUND = {
    "restored": "Each part in turn was made the reference’s again; what the parts save need not add up to the whole.",
    "reconstruction_error": "The shares are of the squared error of the weights, which does not show its effect.",
    "unknown": "Which parts of it cost most is not known.",
}


def damage(report: MitigateReport) -> list[Block]:
    """The parts, most damaged first, and how they were found."""
    found = report.damage
    kl = fmt.estimate(found.kl.mean, found.kl.ci)
    note = f"The candidate loses {kl} nats per token on the documents to choose by. {_FOUND[found.how]}"
    note += f" {_sentence(found.note)}" if found.note else ""
    return [*filled(_parts(report)), Note(visible(note))]


def _parts(report: MitigateReport) -> Table:
    measured = report.damage.how == "restored"
    saved = [Column("Saved if it is restored, nats")] if measured else []
    columns = (*saved, Column("Weights changed by"), Column("Share"), Column("Share", "chart"))
    rows = tuple(_part(part, measured=measured) for part in report.damage.parts)
    return Table("Parts, most damaged first", (Column("Part", "name"), *columns), rows, style="stack strips")


def _part(part: Part, *, measured: bool) -> tuple[Cell, ...]:
    name, share = visible(part.name), part.share or 0.0
    return (
        Cell(name),
        *([_saved(part.saved)] if measured else []),
        Cell(_percent(part.reconstruction_error)),
        Cell(_percent(part.share)),
        Cell(chart=share_bar(f"{name}: {_percent(share)}", share)),
    )


def _percent(share: float | None) -> str:
    return fmt.NONE if share is None else f"{fmt.number(100 * share, 3)} %"


def _saved(mean: Mean | None, *, strong: bool = True) -> Cell:
    return Cell(fmt.NONE) if mean is None else estimate_cell(mean, strong=strong)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def unhelpful(report: MitigateReport) -> list[Block]:
    """Treatments that did not help, and why."""
    if not report.unhelpful:
        return [Note("Every allowed treatment is in the recommended recipe or elsewhere on the front.", kind="plain")]
    rows = tuple(
        (Cell(one.treatment), Cell(visible(_sentence(one.reason))), Cell(fmt.number(one.best_saved)))
        for one in report.unhelpful
    )
    columns = (Column("Treatment", "name"), Column("Why", "text"), Column("Most that it saved alone, nats"))
    return [Table("What did not help, or is not in the recipe", columns, rows, style="stack why")]


def trials(report: MitigateReport) -> list[Block]:
    """Every trial, folded away."""
    full = sum(trial.rung == "full" for trial in report.trials)
    count = fmt.counted(len(report.trials), "trial")
    note = f"{count} on the documents to choose by, {full} in full: only what was made in full can be recommended."
    return [Note(note), *fold(count, filled(_trials(report)))]


def _trials(report: MitigateReport) -> Table:
    scale = LinearScale.around_zero(*(trial.saved for trial in report.trials if trial.saved is not None))
    return Table(
        caption="Every trial, in the order in which it was made",
        columns=(
            Column("", "name"),
            Column("Treatment", "text"),
            Column("Rung", "text", priority=2),
            Column("Expected, nats", priority=2),
            Column("Saved, nats"),
            Column("Saved with 95 % interval", "chart"),
            Column("Size", priority=1),
            Column("Took", priority=3),
            Column("Outcome", "text"),
        ),
        rows=tuple(_trial(trial, scale) for trial in report.trials),
        axis=axis(scale, "saved nats per token, linear axis"),
        style="stack strips told",
    )


def _trial(trial: Trial, scale: LinearScale) -> tuple[Cell, ...]:
    saved = trial.saved or Mean(mean=None, ci=None)
    spoken = f"{trial.number}: saves {fmt.estimate(saved.mean, saved.ci)} nats"
    return (
        Cell(str(trial.number)),
        Cell(words(trial), visible(trial.reason)),
        Cell(trial.rung),
        Cell(fmt.number(trial.expected_saved, 2)),
        _saved(trial.saved, strong=trial.outcome == "front"),
        Cell(chart=interval_strip(spoken, saved.mean, saved.ci, scale, [Guide(0.0, "base")])),
        Cell(fmt.NONE if trial.bytes is None else fmt.size(trial.bytes)),
        Cell(fmt.NONE if trial.seconds is None else fmt.duration(trial.seconds)),
        Cell(_OUTCOMES[trial.outcome]),
    )
