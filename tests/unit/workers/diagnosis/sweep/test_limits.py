"""Limits, thresholds and words of a course of synthetic points whose truth is known."""

import math

import pytest

from app.contracts.request import Thresholds
from app.kinds.sweep.report import Setting, SweepReport, Threshold
from app.kinds.sweep.request import FormBounds
from app.models.strength import Order
from tests.support.sweep_reports import (
    bending,
    course,
    five_bits,
    null_everywhere,
    null_mildest,
    stepping,
    sweep_report,
    sweep_variants,
)
from workers.diagnosis.sweep.fits import fitted_points, threshold_of
from workers.diagnosis.sweep.limits import mild, near_lossless


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
    limit = math.log((6.157 + 1.5) / 6.157)
    assert found.largest == Setting(value=0.2)
    assert found.at == pytest.approx(0.2 + 0.1 * (limit - 0.2) / 0.1, abs=1e-6)
    assert (found.ci[0] or 0) <= found.at <= (found.ci[1] or 1)


def test_mild_ends_where_the_upper_limit_passes_and_falling_values_keep_the_order_of_strength():
    settings = [(8, 0.5, 0.002, 0.01), (6, 0.625, 0.02, 0.02), (5, 0.6875, 0.2, 0.1), (4, 0.75, 0.5, 0.4)]
    made = course(settings)
    found = mild(made, Thresholds())
    assert found.largest == Setting(value=6)
    # Log-linear between 0.02 at 6 bits and 0.2 at 5 bits.
    assert found.at == pytest.approx(6 - math.log(0.05 / 0.02) / math.log(10), abs=1e-3)


def test_a_last_setting_that_is_null_is_told_from_none():
    harmful = course([(None, None, 0.9, 0.9), (100, None, 1.9, 1.9)], order=Order("falling", (0, 1)))
    for body, null in (
        (null_everywhere(), True),
        (null_mildest(), True),
        (sweep_report(harmful, field="recovery_steps", share=None), False),
    ):
        for name in ("largest_mild", "near_lossless"):
            assert body[name]["largest"] == ({"value": None} if null else None)


def test_what_lies_beyond_a_collapse_is_within_no_limit():
    settings = [(s, s, 0.002, 0.01) for s in (0.1, 0.2, 0.3, 0.4)]
    for broken, largest in ((2, 0.2), (0, None)):
        made = course(settings, broken=broken)
        for found in (mild(made, Thresholds()), near_lossless(made, seed=0)):
            if found is None:
                assert broken == 0, "no point is finite up to the collapse"
                continue
            assert found.largest == (None if largest is None else Setting(value=largest))
            assert found.at == (None if largest is None else pytest.approx(0.2)), "the last setting before the collapse"
            if largest is not None:
                # Nothing was measured between it and the collapse: the limit may be passed anywhere there.
                assert found.ci == pytest.approx((0.2, 0.3))
    # One that the model does not take says nothing of those beyond it.
    found = mild(course(settings, refused=1), Thresholds())
    assert found.largest == Setting(value=0.4)


# Half of the weights each, and not as harmful; three quarters.
HALVES = [("2:4", 0.5, 0.2, 0.05), ("4:8", 0.5, 0.01, 0.3), ("1:4", 0.75, 0.9, 0.8)]


def test_settings_of_the_same_share_are_judged_by_what_they_lose_however_they_were_given():
    for asked in ((0, 1, 2), (1, 0, 2)):
        made = course([HALVES[place] for place in asked])
        assert [point.value for point in made.points] == ["4:8", "2:4", "1:4"] and made.axis_kind == "s"
        found = mild(made, Thresholds())
        assert (found.largest.value, found.at, found.ci) == ("4:8", 0.5, (0.5, 0.5))
        rise = near_lossless(made, seed=0)
        assert rise.largest == Setting(value="2:4"), "ln perplexity rises by 0.05 there, and by 0.3 at the other"


def test_a_collapse_stands_last_among_settings_of_the_same_share():
    settings = [("2:4", 0.5, 0.001, 0.01), ("4:8", 0.5, 0.01, 0.02), ("1:4", 0.75, 0.02, 0.03)]
    made = course(settings, broken=0)
    assert [point.value for point in made.points] == ["4:8", "2:4", "1:4"]
    for found in (mild(made, Thresholds()), near_lossless(made, seed=0)):
        assert (found.largest.value, found.at) == ("4:8", 0.5)


def test_settings_that_all_remove_the_same_share_have_no_limit_and_stand_by_what_they_lose():
    layers = [([5], 1 / 30, 0.4, 0.4), ([10], 1 / 30, 0.01, 0.01), ([15], 1 / 30, 0.02, 0.02)]
    made = course(layers, order=Order("unknown", (0, 1, 2)))
    assert [point.value for point in made.points] == [[10], [15], [5]]
    assert mild(made, Thresholds()) is None and near_lossless(made, seed=0) is None


def test_values_on_both_sides_of_a_harmless_one_count_by_their_distance_from_it():
    """Harmless at 1; 0.5 is worse than anything above, and 2 is behind it."""
    settings = [(0.5, None, 0.9, 0.6), (1.0, None, 0.001, 0.001), (1.5, None, 0.02, 0.02), (2.0, None, 0.02, 0.03)]
    made = course(settings, order=Order("around", (1, 2, 0, 3), 1.0))
    rising = course([(0.8, None, 0.02, 0.02), (2.0, None, 0.9, 0.6)], order=Order("around", (0, 1), 1.0))
    assert made.axis_kind == rising.axis_kind == "order", "no damage between 0.8 and 2 is that of a value between them"
    found = mild(made, Thresholds())
    assert found.largest == Setting(value=1.5)
    # Log-linear between the second and the third setting, around the limit of 0.05.
    assert found.at == pytest.approx(2 + math.log(0.05 / 0.02) / math.log(0.9 / 0.02), abs=1e-3)
    assert found.ci == pytest.approx((2, 3)), "no shape of the damage between them is known"


def test_a_loss_beyond_what_a_number_holds_is_no_fit_and_no_failure():
    made = course([(s, s, 1.0, 900.0 * s) for s in (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)])
    assert "larger than can be fitted" in str(threshold_of(made, "perplexity", FormBounds(), seed=0))
    assert isinstance(threshold_of(made, "kl", FormBounds(), seed=0), Threshold | str)


def test_of_as_many_points_as_coefficients_no_threshold_is_identifiable():
    report = sweep_report(course(five_bits()), field="bits", step={"type": "quantize.rtn", "bits": 8}, share="1 - b/16")
    assert report["threshold"]["answer"] == "not identifiable"


def test_a_turn_that_the_published_form_cannot_follow_is_shown_by_the_form_that_can():
    threshold = SweepReport.model_validate(sweep_report(course(stepping()))).threshold
    assert threshold.answer == "not identifiable"
    assert threshold.transition_test.p > threshold.transition_test.level
    assert threshold.turn_shown and threshold.missed
    assert threshold.form == "logistic" and threshold.form_turns_at == pytest.approx(0.3, abs=0.001)


def test_the_best_form_turns_where_its_own_knee_is_and_nowhere_if_it_has_none():
    knee, straight = (SweepReport.model_validate(sweep_variants()[name]).threshold for name in ("knee", "straight"))
    assert not knee.missed and not straight.missed
    assert knee.model_copy(update={"form": "power_law_then_exponential"}).form_turns_at == knee.s0
    assert straight.form_turns_at is None


def test_a_turn_is_shown_by_its_test_and_by_points_to_test_it_on():
    for name, update, shown in (
        ("knee", {}, True),
        ("straight", {}, False),
        ("bits", {}, True),
        ("bits", {"points": 5}, False),
        ("bits", {"points": 5, "bounds": {"b": (0.0, 0.0)}}, True),  # four free coefficients
    ):
        threshold = SweepReport.model_validate(sweep_variants()[name]).threshold
        assert threshold.model_copy(update=update).turn_shown is shown, (name, update)
