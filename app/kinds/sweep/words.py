"""A sweep report in words: how far one may go, settings and places by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from app.kinds.sweep.report import Limit, SweepPoint, SweepReport, SweptSide
from app.models.knobs import told
from app.reports import format as fmt
from app.reports.untrusted import visible

UNJUDGED: Final = "cannot be judged"  # a mean without an interval
_MOST: Final = 3  # values that a heading lists
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
    limit = report.largest_mild
    if report.sides:
        return visible(_between(report))
    if limit is None:
        return f"How far {visible(report.knob.field)} stays mild {UNJUDGED}"
    if not report.stays_mild(limit):
        return visible(_none_mild(report, [limit]))
    if report.knob.order == "unknown":
        return visible(f"{report.knob.field}: {len(report.mild_alone)} of {len(report.measured)} settings are mild")
    return f"Mild up to {setting(report, limit.strongest)}"


def _between(report: SweepReport) -> str:
    """How far one may go on both sides of a neutral value."""
    field, neutral = report.knob.field, told(report.knob.neutral)
    known = [side.largest_mild for side in report.sides if side.largest_mild is not None]
    if not known:
        return f"How far {field} stays mild {UNJUDGED}"
    below, above = report.sides
    low, high = (_mild_end(report, side) for side in report.sides)
    if low is None and high is None:
        return _none_mild(report, known)
    if low is None:
        return f"{field}: mild from {neutral} up to {high}, {_nowhere(report, below)} below"
    if high is None:
        return f"{field}: mild from {neutral} down to {low}, {_nowhere(report, above)} above"
    return f"Mild from {field} {low} to {high}"


def _none_mild(report: SweepReport, known: Sequence[Limit]) -> str:
    """That no setting that changes anything stays mild, by the limits that could be judged."""
    field, neutral = report.knob.field, told(report.knob.neutral)
    open_ = [limit for limit in known if limit.undecided]
    if not report.changing:
        return f"{field}: only {neutral} was measured, which changes nothing"
    if open_:
        return f"{field} not shown to stay mild; {undecided(*open_)}"
    but = f" but {neutral}" if any(limit.largest is not None for limit in known) else ""
    judged = all(side.largest_mild is not None and _measured(report, side) for side in report.sides)
    return f"No value of {field}{but} stays mild{'' if judged else ' on the side that could be judged'}"


def _mild_end(report: SweepReport, side: SweptSide) -> str | None:
    """The last setting that stays mild on a side; None if none that changes anything does."""
    limit = side.largest_mild
    return told(limit.strongest) if limit is not None and report.stays_mild(limit) else None


def _nowhere(report: SweepReport, side: SweptSide) -> str:
    limit = side.largest_mild
    if limit is None:
        return "not judged"
    if not _measured(report, side):
        return "not measured"
    return undecided(limit) if limit.undecided else "nowhere"


def _measured(report: SweepReport, side: SweptSide) -> bool:
    """Whether a setting of a side that changes anything was measured."""
    neutral = report.knob.neutral or 0.0
    numbers = [point.value for point in report.changing if isinstance(point.value, int | float)]
    return any(number < neutral if side.side == "below" else number > neutral for number in numbers)


def undecided(*limits: Limit) -> str:
    """`undecided at 0.1, 0.2`: settings that are neither shown to be mild nor shown not to be; empty for none."""
    values = [told(value) for limit in limits for value in limit.undecided]
    if not values:
        return ""
    return f"undecided at {', '.join(values[:_MOST])}{', …' if len(values) > _MOST else ''}"


def largest_within(limit: Limit | None) -> str:
    """The strongest setting within a limit, by its value; a dash where there is none."""
    return fmt.NONE if limit is None or limit.largest is None else visible(told(limit.largest.value))


def limits_of(report: SweepReport) -> list[tuple[str, Limit | None, Limit | None]]:
    """(which side, where damage stays mild, where it is near-lossless): of both sides of a neutral value, else of all
    settings, whose side is empty."""
    if report.sides:
        told_ = told(report.knob.neutral)
        return [(f"{side.side} {told_}", side.largest_mild, side.near_lossless) for side in report.sides]
    return [("", report.largest_mild, report.near_lossless)]


def last_mild(report: SweepReport, value: Any) -> bool:
    """Whether a value is the last that stays mild, on its side of a neutral one, which is none of either."""
    if report.knob.order == "unknown":
        return False
    return any(
        limit is not None and report.stays_mild(limit) and limit.strongest == value for _, limit, _ in limits_of(report)
    )


def in_order(report: SweepReport) -> str:
    """What the order of the settings is."""
    if report.knob.order == "unknown":
        return "least damage first"
    return f"nearest to {told(report.knob.neutral)} first" if report.sides else "weakest first"


def furthest(report: SweepReport) -> str:
    """What the last of the settings is called."""
    if report.knob.order == "unknown":
        return "most damaging setting"
    return f"setting furthest from {told(report.knob.neutral)}" if report.sides else "strongest setting"


def setting(report: SweepReport, value: Any) -> str:
    """`sparsity 0.4`."""
    return visible(f"{report.knob.field} {told(value)}")


def severity(point: SweepPoint) -> str:
    """The class of damage at a setting that was run. A mean without an interval belongs to none for sure."""
    if point.excess_kl is not None and point.excess_kl.ci is None and not point.nonfinite_positions:
        return UNJUDGED
    return point.severity or fmt.NONE


def largest_column(report: SweepReport) -> str:
    """What the setting is called that stays within a limit."""
    return "Most damaging within" if report.knob.order == "unknown" else "Largest setting"


def where(report: SweepReport, at: float | None) -> str:
    """A place between settings, in the unit of the report's axis."""
    if at is None:
        return fmt.NONE
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
    """(where a limit is passed, or what is known of it; its interval): empty intervals where there is none to tell."""
    if limit.at is not None:
        return where(report, limit.at), ends(limit)
    open_ = limit.ci is not None and (limit.undecided or limit.ci != (None, None))
    return _unplaced(report, limit), ends(limit) if open_ else ""


def lossless_beyond_mild(report: SweepReport, mild: Limit | None, lossless: Limit | None) -> str:
    """The class of damage at the last near-lossless setting, if it is worse than mild.

    Empty if it is not, if there is no such setting, or if what is mild is not known.
    """
    if mild is None or lossless is None or lossless.largest is None or report.knob.order == "unknown":
        return ""
    point = next(point for point in report.points if point.value == lossless.largest.value)
    if point.severity in {None, "none", "mild"}:
        return ""
    return f"the damage there is {' or '.join(point.classes) or point.severity}"


def lossless_note(report: SweepReport) -> str:
    """That near-lossless is not mild, and at which settings; empty if it is."""
    beyond = [
        f"at {setting(report, lossless.strongest)} {told_.replace(' there', '')}"
        for _, mild, lossless in limits_of(report)
        if lossless is not None and (told_ := lossless_beyond_mild(report, mild, lossless))
    ]
    if not beyond:
        return ""
    return (
        "Near-lossless by perplexity is looser than the classes of damage, which go by KL: "
        f"{', '.join(beyond)}. Where the damage shall be mild, go by the setting that stays mild."
    )


def _unplaced(report: SweepReport, limit: Limit) -> str:
    """Why no place is reported where a limit is passed."""
    if report.knob.order == "unknown":
        return visible("; ".join(["each judged by itself", *([undecided(limit)] if limit.undecided else [])]))
    if limit.undecided:
        return visible(undecided(limit))
    return "before the weakest setting" if limit.largest is None else "not in the measured range"


def strongest(report: SweepReport) -> str:
    """What the verdict's section speaks of."""
    last = next((point for point in reversed(report.points) if not point.refused), report.points[-1])
    excess = fmt.estimate(report.decision.excess_kl.mean, report.decision.excess_kl.ci)
    return f"At the {furthest(report)}, {setting(report, last.value)}, the candidate loses {excess} nats per token."
