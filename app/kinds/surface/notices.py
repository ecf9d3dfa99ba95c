"""What limits a surface."""

from app.contracts.notice import Notices


class SurfaceNotice(Notices):
    """Of a surface's report."""

    SETTINGS_BETWEEN = (
        "Settings between the measured ones: limits and the contour are interpolated there. The intervals of limits "
        "include this uncertainty if damage grows ever faster. More settings near a limit narrow them."
    )
    OTHER_ORDER = "The other order of the two steps."
    NO_INTERVAL_OF_LIMITS = (
        "The limits of the knobs have no interval: the text has fewer than {fewest} windows. Give more documents."
    )
    NONFINITE_SETTINGS = (
        "{settings:One setting|{settings} settings} gave logits that are not finite at some position (first "
        "{first}). Such a setting is beyond any loss, and is in no interaction."
    )
    REFUSED_SETTINGS = "{settings:One setting|{settings} settings} could not be made (first {first}: {why})."
    ZERO_IS_FIRST_VALUE = (
        "Both knobs are in one step, which cannot be left out for only one of them. Interactions count from the "
        "first value of each knob."
    )
    AXIS_NOT_RISING = (
        "{knob} alone loses less at {further} than at {before}. Damage does not rise along this axis, so "
        "interactions and limits along it mean little."
    )
