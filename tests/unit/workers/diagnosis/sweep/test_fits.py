"""Which bounds hold for which of the two fits of a sweep, and that the report says so."""

from app.contracts.notices import ThresholdNotice
from app.kinds.sweep.report import Threshold
from app.kinds.sweep.request import FormBounds
from tests.support.sweep_reports import bending, course
from workers.diagnosis.sweep.fits import fitted_points, threshold_of

MADE = course(bending())


def test_of_settings_of_the_same_share_the_one_that_was_asked_for_first_stands_in_the_curve():
    """Whatever they lose: measured values do not choose among themselves."""
    settings = bending(6)
    twice = ("again", settings[2][1], 0.0001, 0.0001)
    for asked in ([*settings[:3], twice, *settings[3:]], [*settings[:2], twice, *settings[2:]]):
        made = course(asked)
        assert made.points[2].value == "again", "the mildest stands first"
        points, why = fitted_points(made, "perplexity")
        values = [point.value for point in points]
        assert not why and [point.s for point in points] == [s for _, s, _, _ in settings]
        assert ("again" in values) == (asked.index(twice) == 2)


def fitted(of, **bounds):
    found = threshold_of(MADE, of, FormBounds(**bounds), seed=0)
    assert isinstance(found, Threshold)
    return found


def test_kl_is_fitted_without_the_bounds_of_the_perplexity_and_says_so():
    asked = {"s0": (0.3, 0.7), "k1": (None, 1.0)}
    bound, free = fitted("kl", **asked), fitted("kl", s0=asked["s0"])
    assert bound.params == free.params and bound.params["k1"] > 1
    assert bound.bounds["k1"] == (None, None) and bound.bounds["s0"] == (0.3, 0.7)
    assert bound.warnings[0] == ThresholdNotice.BOUNDS_LEFT_OUT(coefficients=("k1",))
    assert bound.warnings[1:] == free.warnings


def test_the_perplexity_keeps_all_of_them_and_bounds_of_s0_hold_for_both():
    found = fitted("perplexity", k1=(None, 1.0))
    assert found.params["k1"] <= 1
    assert "bounds_left_out" not in {one.code for one in found.warnings}
    assert "bounds_left_out" not in {one.code for one in fitted("kl", s0=(0.3, 0.7)).warnings}
