"""A sweep report in words: how far one may go, settings and places by name."""

from __future__ import annotations

from typing import Any, Final

from app.kinds.sweep.report import Limit, SweepPoint, SweepReport
from app.models.knobs import told
from app.reports import format as fmt
from app.reports.untrusted import visible

UNJUDGED: Final = "cannot be judged"  # a mean without an interval
NO_ORDER: Final = "no order of strength is known of these settings, so that there is no limit"
FORMS = {
    "power_law_then_exponential": "power law, then exponential (published)",
    "power_law_then_exponential_over_dense": "the same over the unmodified model’s value",
    "power_law": "power law",
    "exponential": "exponential",
    "line": "straight line in y itself",
    "logistic": "logistic",
    "broken_line": "broken line",
}


def form_name(form: str) -> str:
    """A fitted form in words."""
    return FORMS.get(form, visible(form))


def heading(report: SweepReport) -> str:
    """How far one may go, in a few words."""
    field, limit, neutral = report.knob.field, report.largest_mild, report.knob.neutral
    if one_by_one(report):
        mild = sum(point.severity in {"none", "mild"} for point in report.measured)
        return visible(f"{field}: {mild} of {len(report.measured)} settings are mild")
    if limit is None:
        return f"How far {visible(field)} stays mild {UNJUDGED}"
    if limit.largest is None or limit.largest.value == neutral is not None:
        but = "" if limit.largest is None else f" but {told(neutral)}"
        return visible(f"No value of {field}{but} is shown to stay mild")
    return f"Mild up to {setting(report, limit.largest.value)}"


def one_by_one(report: SweepReport) -> bool:
    """Whether settings are counted: none is stronger than another, or they are on both sides of a harmless value."""
    return report.knob.order == "unknown" or (report.knob.order == "around" and report.knob.axis == "order")


def largest_within(limit: Limit | None) -> str:
    """The strongest setting within a limit, by its value; a dash where there is none."""
    return fmt.NONE if limit is None or limit.largest is None else visible(told(limit.largest.value))


def last_mild(report: SweepReport, value: Any) -> bool:
    """Whether a value is the last that stays mild."""
    limit = report.largest_mild
    return limit is not None and limit.largest is not None and limit.largest.value == value


def in_order(report: SweepReport) -> str:
    """What the order of the settings is."""
    if report.knob.order == "unknown":
        return "least damage first"
    return f"nearest to {told(report.knob.neutral)} first" if report.knob.order == "around" else "weakest first"


def setting(report: SweepReport, value: Any) -> str:
    """`sparsity 0.4`."""
    return visible(f"{report.knob.field} {told(value)}")


def severity(point: SweepPoint) -> str:
    """The class of damage at a setting that was run. A mean without an interval belongs to none for sure."""
    if point.excess_kl is not None and point.excess_kl.ci is None and not point.nonfinite_positions:
        return UNJUDGED
    return point.severity or fmt.NONE


def where(report: SweepReport, at: float) -> str:
    """A place between settings, in the unit of the report's axis."""
    names = {"value": report.knob.field, "s": "s", "order": "setting"}
    return visible(f"{names[report.knob.axis]} {fmt.plain(at)}")


def ends(limit: Limit) -> str:
    """The interval of a limit, rising; an open end is outside what was measured."""
    if limit.ci is None:
        return "no interval"
    low, high = limit.ci
    if low is not None and high is not None and low > high:
        low, high = high, low
    weaker = "before the weakest" if low is None else f"{fmt.plain(low)}"
    return f"[{weaker}, {'beyond the strongest' if high is None else f'{fmt.plain(high)}'}]"


def passed(report: SweepReport, limit: Limit) -> tuple[str, str]:
    """(where a limit is passed, or on which side of the measured settings; its interval)."""
    if limit.at is not None:
        return where(report, limit.at), ends(limit)
    outside = "before the weakest setting" if limit.largest is None else "not in the measured range"
    return outside, "" if limit.ci in (None, (None, None)) else ends(limit)


def strongest(report: SweepReport) -> str:
    """What the verdict's section speaks of."""
    last = next((point for point in reversed(report.points) if not point.refused), report.points[-1])
    excess = fmt.estimate(report.decision.excess_kl.mean, report.decision.excess_kl.ci)
    what = "most damaging setting" if report.knob.order == "unknown" else "strongest setting"
    return f"At the {what}, {setting(report, last.value)}, the candidate loses {excess} nats per token."
