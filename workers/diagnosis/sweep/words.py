"""What a sweep found, in plain words."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import JsonValue

from app.kinds.sweep.report import Limit, SweepReport, SweptSide, Threshold
from app.models.knobs import told
from workers.analysis.numerals import numeral

# Values that a sentence lists.
_MOST = 12
_UNJUDGED = "How far the damage stays mild cannot be judged: a single window leaves no interval; score more text."
_FORMS = {
    "power_law_then_exponential": "the published form",
    "power_law_then_exponential_over_dense": "the published form over the unmodified model's value",
    "power_law": "a power law",
    "exponential": "an exponential",
    "line": "a straight line in the perplexity itself",
    "logistic": "a logistic curve",
    "broken_line": "a broken line",
}


def form_in_words(name: str) -> str:
    """A fitted form, for people."""
    return _FORMS.get(name, name)


def sentence(report: SweepReport) -> str:
    """How far damage stays mild, how far it is near-lossless where tasks were asked, and where the curve turns."""
    return " ".join(part for part in (_mild(report), _collapse(report), *_lossless(report), _turn(report)) if part)


def _lossless(report: SweepReport) -> list[str]:
    """The answers by the whole near-lossless rule, of each side of a neutral value its own."""
    whole = report.near_lossless_rule
    sides = [(side, side.near_lossless_rule) for side in report.sides]
    return [
        *([] if whole is None else [whole.sentence]),
        *(
            f"On the side {side.side} {told(report.knob.neutral)}: {rule.sentence}"
            for side, rule in sides
            if rule is not None
        ),
    ]


def _mild(report: SweepReport) -> str:
    field, limit = report.knob.field, report.largest_mild
    if report.sides:
        return _on_both_sides(report)
    if limit is None:
        return _UNJUDGED
    if report.knob.order == "unknown":
        return _one_by_one(report)
    if not report.stays_mild(limit):
        return _none_mild(report, limit)
    if limit.at is None and limit.strongest == report.measured[-1].value:
        return f"The damage stays mild up to the strongest setting measured, {field} = {told(limit.strongest)}."
    beside = _as_strong(report, limit)
    return f"The damage stays mild up to {field} = {told(limit.strongest)}{beside}{_end(report, limit)}."


def _none_mild(report: SweepReport, limit: Limit) -> str:
    if not report.changing:
        return f"Only {report.knob.field} = {told(report.knob.neutral)} was measured, which changes nothing by itself."
    if limit.undecided:
        return f"The damage is not shown to stay mild: it is {_undecided(report, limit)}."
    weakest = report.changing[0].value
    return f"Not even {report.knob.field} = {told(weakest)} keeps the damage mild{_crossing(report, limit)}."


def _undecided(report: SweepReport, limit: Limit) -> str:
    """Settings that are neither shown to be mild nor shown not to be, and how far the limit's place is known."""
    found = f"undecided at {report.knob.field} = {_listed(limit.undecided)}"
    if limit.at is not None or limit.ci is None:
        return f"{found}{_crossing(report, limit)}"
    units = {"value": report.knob.field, "s": "s", "order": "place in the order of strength"}
    return f"{found}; {units[report.knob.axis]} where the limit is passed: {_interval(limit)}"


def _end(report: SweepReport, limit: Limit) -> str:
    """What follows the last mild setting: where the limit is passed, or where it is undecided whether it is."""
    return f"; {_undecided(report, limit)}" if limit.at is None and limit.undecided else _crossing(report, limit)


def _as_strong(report: SweepReport, limit: Limit) -> str:
    """Settings that remove the same share as the last mild one, and are not."""
    measured = report.measured
    last = next((place for place, point in enumerate(measured) if point.value == limit.strongest), len(measured))
    beyond = [point.value for point in measured[last + 1 :] if point.s is not None and point.s == measured[last].s]
    if not beyond:
        return ""
    return f", and not at {_listed(beyond)}, which {'removes' if len(beyond) == 1 else 'remove'} as much"


def _listed(values: Sequence[JsonValue]) -> str:
    return ", ".join(told(value) for value in values[:_MOST]) + (", …" if len(values) > _MOST else "")


def _one_by_one(report: SweepReport) -> str:
    """Of a knob without an order: at which settings damage is mild."""
    field = report.knob.field
    known = f"No order of strength is known of {field}, so that each setting is judged by itself"
    if report.knob.share is not None:
        known = f"All settings of {field} remove the same share of the model, so that each is judged by itself"
    mild, limit = report.mild_alone, report.largest_mild
    open_ = "" if limit is None or not limit.undecided else f", and undecided at {field} = {_listed(limit.undecided)}"
    if not mild:
        shown = "shown to be mild" if open_ else "mild"
        return f"{known}: the damage is {shown} at none of the {len(report.measured)} measured{open_}."
    if len(mild) == len(report.measured):
        return f"{known}: the damage is mild at all {len(mild)} measured."
    values = _listed([point.value for point in mild])
    return f"{known}: the damage is mild at {field} = {values}, {len(mild)} of {len(report.measured)} measured{open_}."


def _on_both_sides(report: SweepReport) -> str:
    """Of a knob whose harmless value is among those asked for."""
    field, neutral = report.knob.field, report.knob.neutral
    if all(side.largest_mild is None for side in report.sides):
        return _UNJUDGED
    known = f"{field} = {told(neutral)} changes nothing by itself, and its two sides are judged apart."
    return " ".join([known, *(_on_side(report, side) for side in report.sides)])


def _on_side(report: SweepReport, side: SweptSide) -> str:
    field, neutral, limit = report.knob.field, report.knob.neutral or 0.0, side.largest_mild
    down = side.side == "below"
    name = "Below it" if down else "Above it"
    values = [
        point.value
        for point in report.measured
        if isinstance(point.value, int | float) and (point.value < neutral if down else point.value > neutral)
    ]
    if not values:
        return f"{name} nothing was measured."
    if limit is None:
        return f"{name} it cannot be judged: a single window leaves no interval."
    shown = report.stays_mild(limit)
    if not shown and limit.undecided:
        return f"{name} the damage is not shown to stay mild: it is {_undecided(report, limit)}."
    if not shown:
        return f"{name} not even {field} = {told(values[0])} keeps the damage mild{_crossing(report, limit)}."
    toward = "down to" if down else "up to"
    if limit.at is None and limit.strongest == values[-1]:
        return f"{name} the damage stays mild {toward} the furthest setting measured, {field} = {told(values[-1])}."
    return f"{name} the damage stays mild {toward} {field} = {told(limit.strongest)}{_end(report, limit)}."


def _collapse(report: SweepReport) -> str:
    """Where logits cease to be finite: no number says it."""
    broken = next((point for point in report.points if point.nonfinite_positions), None)
    if broken is None:
        return ""
    return f"At {report.knob.field} = {told(broken.value)} some logits are not finite, which is a collapse."


def _crossing(report: SweepReport, limit: Limit) -> str:
    """Where the limit is passed, in the unit of the report's axis."""
    if limit.at is None:
        return ""
    units = {"value": f"{report.knob.field} = ", "s": "s = ", "order": "place "}
    beside = " in the order of strength" if report.knob.axis == "order" else ""
    if limit.ci is not None and limit.ci[0] == limit.at and limit.ci[1] is not None and _collapse(report):
        ends = f"{units[report.knob.axis]}{numeral(limit.at)} and the collapse at {numeral(limit.ci[1])}"
        return f"; the limit is passed between {ends}{beside}"
    return f"; the mean passes the limit at {units[report.knob.axis]}{numeral(limit.at)}{beside} ({_interval(limit)})"


def _interval(limit: Limit) -> str:
    """The interval of a place in words; an open end is outside what was measured."""
    if limit.ci is None:
        return "too few documents for an interval"
    weaker, stronger = limit.ci
    if weaker is not None and stronger is not None:
        low, high = sorted((weaker, stronger))
        return f"95 % interval {numeral(low)} to {numeral(high)}"
    if stronger is not None:
        return f"95 % interval from before the weakest setting to {numeral(stronger)}"
    if weaker is not None:
        return f"95 % interval {numeral(weaker)} to beyond the strongest setting"
    return "95 % interval wider than what was measured"


def _turn(report: SweepReport) -> str:
    threshold = report.threshold
    if threshold is None:
        return f"There is no threshold: {report.no_threshold}."
    if threshold.answer == "no transition in range":
        return (
            "The perplexity has no transition in the measured range: the published form, which turns, is not shown to "
            f"describe it better than {form_in_words(threshold.transition_test.likeliest)} does "
            f"(p = {numeral(threshold.transition_test.p, '.2g')})."
        )
    if threshold.answer == "not identifiable":
        if not threshold.turn_shown:
            return f"Whether the perplexity turns cannot be known: {threshold.reasons[0]}."
        if threshold.missed:
            return f"The perplexity turns, but the published form does not say where: {threshold.reasons[0]}."
        return f"The perplexity turns, but these points do not say where: {threshold.reasons[0]}."
    found = f"The perplexity turns at s0 = {numeral(threshold.s0)} (95 % interval {_ends(threshold)}){_in_knob(report)}"
    return f"{found}{_doubt(threshold)}."


def _doubt(threshold: Threshold) -> str:
    """Of a form that the points reject, as its interval takes it for right; and what the best form says."""
    if not threshold.ill_fitting:
        return ""
    told_ = f", as the published form has it, which does not fit (p = {numeral(threshold.lack_of_fit or 0.0, '.2g')})"
    place = threshold.form_turns_at
    if threshold.unjudged or place is None or abs(place - threshold.s0) < 1e-9:
        return told_
    deltas = {rival.form: rival.delta_aicc for rival in threshold.rivals}
    how = (
        "describes the points better" if (deltas.get(threshold.form) or 0.0) < 0 else "predicts left-out points better"
    )
    return f"{told_}; {form_in_words(threshold.form)} {how} and turns at {numeral(place)}"


def _ends(threshold: Threshold) -> str:
    return f"{numeral(threshold.ci[0])} to {numeral(threshold.ci[1])}"


def _in_knob(report: SweepReport) -> str:
    """s0 in the knob's own unit, where that is another."""
    threshold = report.threshold
    if threshold is None or threshold.value is None or abs(threshold.value - threshold.s0) < 1e-9:
        return ""
    ci = threshold.value_ci
    interval = "" if ci is None else f" ({numeral(ci[0])} to {numeral(ci[1])})"
    return f", which is {report.knob.field} = {numeral(threshold.value)}{interval}"
