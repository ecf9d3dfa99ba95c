"""Limits, thresholds and words of a course of synthetic points whose truth is known."""

import math

import pytest

from app.contracts.requests.base import Thresholds
from app.contracts.requests.sweep import FormBounds
from app.contracts.sweep_report import SweepReport, Threshold
from tests.support.sweep_reports import bending, course, sweep_variants
from workers.diagnosis.sweep.fits import fitted_points, threshold_of
from workers.diagnosis.sweep.limits import crossing_slopes, mild, near_lossless


def test_the_knee_of_the_perplexity_is_found_with_an_interval_over_documents():
    found = threshold_of(course(bending(12, knee=0.45)), "perplexity", FormBounds(), seed=0)
    assert isinstance(found, Threshold)
    assert found.answer == "transition" and found.identifiable
    assert found.ci[0] <= 0.45 + 0.01 and found.ci[1] >= 0.45 - 0.01
    assert found.s0 == pytest.approx(0.45, abs=0.02)
    assert found.interval.resampled == "documents"
    assert found.value == pytest.approx(found.s0), "the knob is the share"


def test_bounds_of_s0_are_kept_or_refused():
    made = course(bending())
    found = threshold_of(made, "perplexity", FormBounds(s0=(0.5, 0.7)), seed=0)
    assert isinstance(found, Threshold) and 0.5 <= found.s0 <= 0.7
    assert "outside the measured range" in str(threshold_of(made, "kl", FormBounds(s0=(0.9, 0.95)), seed=0))


def test_points_that_cannot_stand_in_a_curve_are_left_out():
    made = course(bending(8), broken=7, refused=3)
    points, why = fitted_points(made, "perplexity")
    assert [point.index for point in points] == [0, 1, 2, 4, 5, 6] and not why
    assert "5 at least" in fitted_points(course(bending(4)), "kl")[1]
    assert "no share" in fitted_points(course([(1.1, None, 0.1, 0.1), (2.0, None, 0.2, 0.2)]), "kl")[1]


def test_the_near_lossless_point_is_where_the_rise_passes_the_published_rule():
    settings = [(s, s, 0.1 * s, rise) for s, rise in ((0.1, 0.1), (0.2, 0.2), (0.3, 0.3), (0.4, 0.4))]
    found = near_lossless(course(settings), seed=0)
    assert found is not None and found.ci is not None
    limit = math.log((6.157 + 1.5) / 6.157)
    assert found.largest == 0.2
    assert found.at == pytest.approx(0.2 + 0.1 * (limit - 0.2) / 0.1, abs=1e-6)
    assert (found.ci[0] or 0) <= found.at <= (found.ci[1] or 1)


def test_mild_ends_where_the_upper_limit_passes_and_falling_values_keep_the_order_of_strength():
    settings = [(8, 0.5, 0.002, 0.01), (6, 0.625, 0.02, 0.02), (5, 0.6875, 0.2, 0.1), (4, 0.75, 0.5, 0.4)]
    made = course(settings)
    found = mild(made, Thresholds())
    assert found is not None and found.at is not None
    assert found.largest == 6
    # Log-linear between 0.02 at 6 bits and 0.2 at 5 bits.
    assert found.at == pytest.approx(6 - math.log(0.05 / 0.02) / math.log(10), abs=1e-3)
    slopes = crossing_slopes(made, found)
    assert slopes is not None
    assert slopes.below == pytest.approx(-0.005, abs=1e-4) and slopes.above == pytest.approx(-0.3, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("knee", "The perplexity turns at s0 = 0.45"),
        ("straight", "no transition in the measured range"),
        ("factor", "removes no share"),
        ("bits", "do not say where"),
        ("few", "5 at least"),
    ],
)
def test_the_verdict_says_what_was_found(name, words):
    assert words in SweepReport.model_validate(sweep_variants()[name]).verdict
