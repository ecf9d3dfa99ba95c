"""What a sweep found, in plain words."""

from __future__ import annotations

from app.contracts.sweep_report import Limit, SweepReport, Threshold
from app.models.knobs import told

_FORMS = {
    "power_law_then_exponential": "the published form",
    "power_law_then_exponential_over_dense": "the published form over the unmodified model's value",
    "power_law": "a power law",
    "exponential": "an exponential",
    "logistic": "a logistic curve",
    "broken_line": "a broken line",
}


def form_in_words(name: str) -> str:
    """A fitted form, for people."""
    return _FORMS.get(name, name)


def sentence(report: SweepReport) -> str:
    """Two sentences: how far damage stays mild, and where the curve turns."""
    return f"{_mild(report)} {_turn(report)}"


def _mild(report: SweepReport) -> str:
    field, limit = report.knob.field, report.largest_mild
    if limit is None:
        return "No setting could be judged."
    if limit.largest is None:
        return f"Not even {field} = {told(report.points[0].value)} keeps the damage mild{_crossing(limit, field)}."
    if limit.at is None and limit.largest == report.points[-1].value:
        return f"The damage stays mild up to the strongest setting measured, {field} = {told(limit.largest)}."
    return f"The damage stays mild up to {field} = {told(limit.largest)}{_crossing(limit, field)}."


def _crossing(limit: Limit, field: str) -> str:
    if limit.at is None:
        return ""
    ends = [] if limit.ci is None else [end for end in limit.ci if end is not None]
    if limit.ci is None or len(ends) < len(limit.ci):
        return f"; the mean passes the limit near {limit.at:.3g}"
    low, high = sorted(ends)
    return f"; the mean passes the limit at {limit.at:.3g} (95 % interval {low:.3g} to {high:.3g})"


def _turn(report: SweepReport) -> str:
    threshold = report.threshold
    if threshold is None:
        return f"There is no threshold: {report.no_threshold}."
    if threshold.answer == "no transition in range":
        return (
            "The perplexity has no transition in the measured range: "
            f"{form_in_words(threshold.form)} describes it throughout."
        )
    if threshold.answer == "not identifiable":
        return f"The perplexity turns, but these points do not say where: {threshold.reasons[0]}."
    return f"The perplexity turns at s0 = {threshold.s0:.3g} (95 % interval {_ends(threshold)}){_in_knob(report)}."


def _ends(threshold: Threshold) -> str:
    return f"{threshold.ci[0]:.3g} to {threshold.ci[1]:.3g}"


def _in_knob(report: SweepReport) -> str:
    """s0 in the knob's own unit, where that is another."""
    threshold = report.threshold
    if threshold is None or threshold.value is None or abs(threshold.value - threshold.s0) < 1e-9:
        return ""
    return f", which is {report.knob.field} = {threshold.value:.3g}"
