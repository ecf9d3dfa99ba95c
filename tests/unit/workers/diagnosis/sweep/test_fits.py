"""Which bounds hold for which of the two fits of a sweep, and that the report says so."""

from app.contracts.requests.sweep import FormBounds
from app.contracts.sweep_report import Threshold
from tests.support.sweep_reports import bending, course
from workers.diagnosis.sweep.fits import threshold_of

MADE = course(bending())


def fitted(of, **bounds):
    found = threshold_of(MADE, of, FormBounds(**bounds), seed=0)
    assert isinstance(found, Threshold)
    return found


def test_kl_is_fitted_without_the_bounds_of_the_perplexity_and_says_so():
    asked = {"s0": (0.3, 0.7), "k1": (None, 1.0)}
    bound, free = fitted("kl", **asked), fitted("kl", s0=asked["s0"])
    assert bound.params == free.params and bound.params["k1"] > 1
    assert bound.bounds["k1"] == (None, None) and bound.bounds["s0"] == (0.3, 0.7)
    assert "on k1" in bound.warnings[0] and "KL is fitted without them" in bound.warnings[0]
    assert bound.warnings[1:] == free.warnings


def test_the_perplexity_keeps_all_of_them_and_bounds_of_s0_hold_for_both():
    found = fitted("perplexity", k1=(None, 1.0))
    assert found.params["k1"] <= 1
    assert not any("KL" in warning for warning in found.warnings)
    assert not any("asked for" in warning for warning in fitted("kl", s0=(0.3, 0.7)).warnings)
