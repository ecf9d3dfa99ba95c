"""What limits or spoils a surface."""

from app.contracts.notice import Notices


class SurfaceNotice(Notices):
    """Of a surface's report."""

    SETTINGS_BETWEEN = (
        "Settings between the measured ones: limits and the contour are interpolated there. The intervals of limits "
        "hold what that leaves open if damage grows ever faster; more settings near a limit narrow them."
    )
    OTHER_ORDER = "The other order of the two steps."
    NO_INTERVAL_OF_LIMITS = (
        "Too few documents for an interval of how far a knob goes: fewer than {fewest} windows of text are at hand. "
        "More documents give the limits one."
    )
    NONFINITE_SETTINGS = (
        "{settings:One setting|{settings} settings} gave logits that are not finite somewhere (first {first}). What is "
        "not finite is beyond any loss, and is in no interaction."
    )
    REFUSED_SETTINGS = "{settings:One setting|{settings} settings} could not be made (first {first}: {why})."
    ZERO_IS_FIRST_VALUE = (
        "Both knobs are in one step, which cannot be left out for one of them alone: interactions are counted from the "
        "first value of each."
    )
    AXIS_NOT_RISING = (
        "{knob} alone loses less at {further} than at {before}: the axis is not one of rising damage, and interactions "
        "and limits along it say little."
    )
