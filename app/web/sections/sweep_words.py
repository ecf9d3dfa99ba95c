"""A sweep report in words: how far one may go, settings and places by name."""

from __future__ import annotations

from typing import Any, Final

from app.contracts.sweep_report import Limit, SweepDomain, SweepPoint, SweepReport
from app.models.knobs import told
from app.web import format as fmt
from app.web.untrusted import visible

UNJUDGED: Final = "cannot be judged"  # a mean without an interval
FORMS = {
    "power_law_then_exponential": "power law, then exponential (published)",
    "power_law_then_exponential_over_dense": "the same over the unmodified model’s value",
    "power_law": "power law",
    "exponential": "exponential",
    "logistic": "logistic",
    "broken_line": "broken line",
}


def heading(report: SweepReport) -> str:
    """How far one may go, in a few words."""
    limit = report.largest_mild
    if limit is None:
        return f"How far {visible(report.knob.field)} stays mild {UNJUDGED}"
    if limit.largest is None:
        return f"No value of {visible(report.knob.field)} stays mild"
    return f"Mild up to {setting(report, limit.largest)}"


def setting(report: SweepReport, value: Any) -> str:
    """`sparsity 0.4`."""
    return visible(f"{report.knob.field} {told(value)}")


def severity(point: SweepPoint) -> str:
    """The class of damage at a setting that was run. A mean without an interval belongs to none for sure."""
    if point.excess_kl is not None and point.excess_kl.ci is None and not point.nonfinite_positions:
        return UNJUDGED
    return point.severity or fmt.NONE


def mild_up_to(domain: SweepDomain) -> str:
    """The strongest setting that stays mild on a domain."""
    if domain.largest_mild is None:
        return UNJUDGED if domain.note else fmt.NONE
    return visible(told(domain.largest_mild))


def where(report: SweepReport, at: float | None) -> str:
    """A place between settings, in the unit of the report's axis."""
    if at is None:
        return fmt.NONE
    names = {"value": report.knob.field, "s": "s", "order": "setting"}
    return visible(f"{names[report.knob.axis]} {at:.3g}")


def ends(limit: Limit) -> str:
    """The interval of a limit, rising; an open end lies outside what was measured."""
    if limit.ci is None:
        return "no interval"
    low, high = limit.ci
    if low is not None and high is not None and low > high:
        low, high = high, low
    shown = [("beyond" if end is None else f"{end:.3g}") for end in (low, high)]
    return f"[{shown[0]}, {shown[1]}]"


def strongest(report: SweepReport) -> str:
    """What the verdict's section speaks of."""
    last = next((point for point in reversed(report.points) if not point.refused), report.points[-1])
    excess = fmt.estimate(report.decision.excess_kl.mean, report.decision.excess_kl.ci)
    return f"At the strongest setting, {setting(report, last.value)}, the candidate loses {excess} nats a token."
