"""The fitted thresholds of a sweep: answer, numbers, and the forms that were compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from app.kinds.sweep.report import Answer, Threshold
from app.kinds.sweep.words import FORMS, form_name
from app.reports import format as fmt
from app.reports.blocks import Cell, Column, Table
from app.reports.untrusted import visible

# The forms that agree with the answer are those that one is chosen of.
_AMONG: Final[dict[Answer, str]] = {
    "transition": " of those with a transition",
    "no transition in range": " of those without a transition",
    "not identifiable": "",
}


@dataclass(frozen=True)
class FitView:
    """One fitted threshold: what it says, its numbers and its rivals."""

    name: str
    answer: str
    notes: tuple[str, ...]
    numbers: Table
    forms: Table


def fit_view(threshold: Threshold) -> FitView:
    """A fitted threshold for the page."""
    of = "perplexity" if threshold.of == "perplexity" else "KL"
    params = threshold.params
    rows = [
        (
            "s0",
            fmt.estimate(threshold.s0, threshold.ci),
            f"{_where(threshold)}; {_bound(threshold, 's0')}",
        ),
        ("p of no transition", fmt.Estimate(fmt.number(threshold.transition_test.p, 2), None), _level(threshold)),
        ("p of the form’s fit", fmt.Estimate(fmt.number(threshold.lack_of_fit, 2), None), "small: it does not fit"),
    ]
    rows += [
        (name, fmt.Estimate(fmt.number(value), None), _bound(threshold, name))
        for name, value in params.items()
        if name != "s0"
    ]
    numbers = Table(
        caption=f"The published form, fitted to {threshold.points} points by least squares on ln {of}",
        columns=(Column("", "name"), Column("Value"), Column("What it is", "text")),
        rows=tuple((Cell(name), Cell(value.value, value.interval or ""), Cell(note)) for name, value, note in rows),
    )
    return FitView(
        name=of,
        answer=answer(threshold, of),
        notes=tuple(visible(note) for note in (*threshold.reasons, *(one.text for one in threshold.warnings))),
        numbers=numbers,
        forms=_forms(threshold, of),
    )


def answer(threshold: Threshold, of: str) -> str:
    """Whether and where the quantity `of` turns."""
    if threshold.answer == "transition":
        value = ""
        if threshold.value is not None and abs(threshold.value - threshold.s0) > 1e-9:
            value = f", where the knob is at {fmt.estimate(threshold.value, threshold.value_ci)}"
        doubt = ""
        if threshold.ill_fitting:
            doubt = f", as the published form has it, which does not fit (p = {fmt.number(threshold.lack_of_fit)})"
        return f"The {of} turns at s0 = {fmt.estimate(threshold.s0, threshold.ci)} (95 % interval){value}{doubt}."
    if threshold.answer == "no transition in range":
        return f"The {of} has no transition in the measured range."
    if not threshold.turn_shown:
        return f"Not identifiable: whether the {of} turns cannot be known."
    if threshold.missed:
        place = f"; the best form, {form_name(threshold.form)}, turns at s = "
        at = "" if threshold.form_turns_at is None else f"{place}{fmt.number(threshold.form_turns_at)}"
        return f"Not identifiable: the {of} turns, and the published form does not say where{at}."
    return f"Not identifiable: the {of} turns, and these points do not show where."


def _where(threshold: Threshold) -> str:
    """What s0 is, which is a turn only where one is shown."""
    if threshold.answer == "no transition in range":
        return "the share removed where the parts of the form meet, which is no turn of the curve"
    if not threshold.turn_shown:
        return "the share removed where the parts of the form meet; whether the curve turns cannot be known"
    if threshold.missed:
        return "the share removed where the parts of the form meet; the curve turns, and this form does not show where"
    return "the share removed where the curve turns"


def _level(threshold: Threshold) -> str:
    return f"a transition is claimed at {threshold.transition_test.level:g} and below"


def _bound(threshold: Threshold, name: str) -> str:
    low, high = threshold.bounds.get(name, (None, None))
    if low is None and high is None:
        return "no bounds"
    shown = [fmt.short(end) if end is not None else "open" for end in (low, high)]
    rests = ", rests on one" if name in threshold.at_bounds else ""
    return f"bounds {shown[0]} to {shown[1]}{rests}"


def _chosen_by(threshold: Threshold) -> str:
    """What the bold form is the best by, and of which."""
    return f"the bold one has the least error at left-out points within 2 of the least AICc{_AMONG[threshold.answer]}"


def _forms(threshold: Threshold, of: str) -> Table:
    best = None if threshold.unjudged else threshold.form
    marked = f"no choice: too few points for the AICc of {len(threshold.unjudged)} of them" if best is None else ""
    if None in (threshold.left_out_error, *(rival.left_out_error for rival in threshold.rivals)):
        marked += "; an error at left-out points takes two points more than the form has coefficients"
    rows = [
        (
            Cell(FORMS["power_law_then_exponential"], strong=best == "power_law_then_exponential"),
            Cell(fmt.number(threshold.log_sse)),
            Cell(fmt.number(threshold.aicc, 4)),
            Cell("0"),
            Cell(fmt.number(threshold.left_out_error)),
            Cell(fmt.number(threshold.s0)),
        )
    ]
    rows += [
        (
            Cell(form_name(rival.form), strong=rival.form == best),
            Cell(fmt.number(rival.log_sse)),
            Cell(fmt.number(rival.aicc, 4)),
            Cell(fmt.signed(rival.delta_aicc)),
            Cell(fmt.number(rival.left_out_error)),
            Cell(fmt.number(rival.transition_at)),
        )
        for rival in threshold.rivals
    ]
    return Table(
        caption=f"Forms for ln {of}; {marked or _chosen_by(threshold)}",
        columns=(
            Column("Form", "text"),
            Column("Sum of squares"),
            Column("AICc"),
            Column("Difference"),
            Column("Error at left-out points"),
            Column("Turns at s"),
        ),
        rows=tuple(rows),
    )
