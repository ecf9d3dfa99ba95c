"""Limits, thresholds and words of a course of synthetic points whose truth is known."""

import math

import numpy as np
import pytest

from app.contracts.request import Thresholds
from app.kinds.sweep.report import Limit, SweepReport, Threshold
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
from workers.diagnosis.sweep.limits import crossing_slopes, mild, near_lossless
from workers.diagnosis.sweep.words import sentence

_AS_PUBLISHED = ", as the published form has it, which does not fit (p = 0.021)"


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
    assert "half of the published rule" in found.rule
    assert "at most 5 % lost on tasks, is not asked" in found.rule


def test_mild_ends_where_the_upper_limit_passes_and_falling_values_keep_the_order_of_strength():
    settings = [(8, 0.5, 0.002, 0.01), (6, 0.625, 0.02, 0.02), (5, 0.6875, 0.2, 0.1), (4, 0.75, 0.5, 0.4)]
    made = course(settings)
    found = mild(made, Thresholds())
    assert found is not None and found.at is not None
    assert found.largest == 6
    # Log-linear between 0.02 at 6 bits and 0.2 at 5 bits.
    assert found.at == pytest.approx(6 - math.log(0.05 / 0.02) / math.log(10), abs=1e-3)
    slopes = crossing_slopes(made, found, seed=0)
    assert slopes is not None
    assert slopes.below == pytest.approx(-0.005, abs=1e-4) and slopes.above == pytest.approx(-0.3, abs=1e-3)


def test_a_last_setting_that_is_null_is_told_from_none():
    body = null_everywhere()
    for name in ("largest_mild", "near_lossless"):
        assert (body[name]["largest"], body[name]["null_is_value"]) == (None, True)
    assert body["verdict"].startswith(
        "The damage stays mild up to the strongest setting measured, group_size = null. There is no threshold"
    )
    body = null_mildest()
    assert body["largest_mild"]["null_is_value"] and body["near_lossless"]["null_is_value"]
    assert body["verdict"].startswith("The damage stays mild up to recovery_steps = null; the mean passes the limit")
    harmful = course([(None, None, 0.9, 0.9), (100, None, 1.9, 1.9)], order=Order("falling", (0, 1)))
    report = sweep_report(harmful, field="recovery_steps", share=None)
    assert report["largest_mild"]["null_is_value"] is report["near_lossless"]["null_is_value"] is False
    assert report["verdict"].startswith("Not even recovery_steps = null keeps the damage mild")
    alone = sweep_report(
        course([(None, None, 0.001, 0.001), (100, None, 1.9, 1.9)], order=Order("unknown", (0, 1))),
        field="owl_range",
        share=None,
    )
    assert "the damage is mild at owl_range = null, 1 of 2 measured" in alone["verdict"]


def test_what_lies_beyond_a_collapse_is_within_no_limit():
    settings = [(s, s, 0.002, 0.01) for s in (0.1, 0.2, 0.3, 0.4)]
    for broken, largest in ((2, 0.2), (0, None)):
        made = course(settings, broken=broken)
        for found in (mild(made, Thresholds()), near_lossless(made, seed=0)):
            if found is None:
                assert broken == 0, "no point is finite up to the collapse"
                continue
            assert found.largest == largest
            assert found.at == (None if largest is None else pytest.approx(0.2)), "the last setting before the collapse"
            if largest is not None:
                # Nothing was measured between it and the collapse: the limit may be passed anywhere there.
                assert found.ci == pytest.approx((0.2, 0.3))
    # One that the model does not take says nothing of those beyond it.
    found = mild(course(settings, refused=1), Thresholds())
    assert found is not None and found.largest == 0.4


# Half of the weights each, and not as harmful; three quarters.
HALVES = [("2:4", 0.5, 0.2, 0.05), ("4:8", 0.5, 0.01, 0.3), ("1:4", 0.75, 0.9, 0.8)]


def test_settings_of_the_same_share_are_judged_by_what_they_lose_however_they_were_given():
    for asked in ((0, 1, 2), (1, 0, 2)):
        made = course([HALVES[place] for place in asked])
        assert [point.value for point in made.points] == ["4:8", "2:4", "1:4"] and made.axis_kind == "s"
        found = mild(made, Thresholds())
        assert found is not None
        assert (found.largest, found.at, found.ci) == ("4:8", 0.5, (0.5, 0.5))
        rise = near_lossless(made, seed=0)
        assert rise is not None and rise.largest == "2:4", "ln perplexity rises by 0.05 there, and by 0.3 at the other"
        report = sweep_report(made, field="pattern", step={"type": "prune.wanda", "pattern": "2:4"})
        assert "and not at 2:4, which removes as much" in report["verdict"]


def test_a_collapse_stands_last_among_settings_of_the_same_share():
    settings = [("2:4", 0.5, 0.001, 0.01), ("4:8", 0.5, 0.01, 0.02), ("1:4", 0.75, 0.02, 0.03)]
    made = course(settings, broken=0)
    assert [point.value for point in made.points] == ["4:8", "2:4", "1:4"]
    for found in (mild(made, Thresholds()), near_lossless(made, seed=0)):
        assert found is not None and (found.largest, found.at) == ("4:8", 0.5)


def test_settings_that_all_remove_the_same_share_are_judged_one_by_one():
    layers = [([5], 1 / 30, 0.4, 0.4), ([10], 1 / 30, 0.01, 0.01), ([15], 1 / 30, 0.02, 0.02)]
    made = course(layers, order=Order("unknown", (0, 1, 2)))
    found = mild(made, Thresholds())
    assert found is not None and (found.largest, found.at) == ([15], None)
    report = sweep_report(made, field="layers", step={"type": "prune.layers", "layers": [5]})
    assert "All settings of layers remove the same share of the model, so that each is judged" in report["verdict"]
    assert "the damage is mild at layers = " in report["verdict"] and ", 2 of 3 measured." in report["verdict"]


def test_slopes_have_the_interval_of_documents_resampled_jointly():
    settings = [(0.1, 0.1, 0.01, 0.01), (0.2, 0.2, 0.02, 0.03), (0.4, 0.4, 0.5, 0.4), (0.5, 0.5, 0.9, 0.8)]
    made = course(settings)
    slopes = crossing_slopes(made, mild(made, Thresholds()), seed=3)
    assert slopes is not None and slopes.below_ci is not None and slopes.above_ci is not None
    losses = made.losses(made.points, "perplexity")
    rng, drawn = np.random.default_rng(11), []
    for _ in range(4000):
        pick = rng.integers(0, 24, 24)
        weak, strong = (
            losses.sum_PD[side][:, pick].sum(axis=1) / losses.tokens_D[pick].sum() for side in ([0, 1], [2, 3])
        )
        drawn.append([(weak[1] - weak[0]) / 0.1, (strong[1] - strong[0]) / 0.1])
    expected = np.quantile(np.array(drawn), [0.025, 0.975], axis=0)
    assert slopes.below_ci == pytest.approx(expected[:, 0], rel=0.05)
    assert slopes.above_ci == pytest.approx(expected[:, 1], rel=0.05)
    fitted = threshold_of(course(bending(10, knee=0.45)), "perplexity", FormBounds(), seed=0)
    assert isinstance(fitted, Threshold)
    for slope, ci in (
        (fitted.slopes.measured_below, fitted.slopes.measured_below_ci),
        (fitted.slopes.measured_above, fitted.slopes.measured_above_ci),
    ):
        assert slope is not None and ci is not None and ci[0] < slope < ci[1]
    assert mild(course(settings, documents=1), Thresholds()) is None, "a single window has no interval"
    few = course(settings, documents=3)
    alone = crossing_slopes(few, mild(few, Thresholds()), seed=3)
    assert alone is not None and alone.below_ci is None and alone.above_ci is None


def test_a_loss_beyond_what_a_number_holds_is_no_fit_and_no_failure():
    made = course([(s, s, 1.0, 900.0 * s) for s in (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)])
    assert "larger than can be fitted" in str(threshold_of(made, "perplexity", FormBounds(), seed=0))
    assert isinstance(threshold_of(made, "kl", FormBounds(), seed=0), Threshold | str)


def test_a_place_is_told_in_its_unit_and_with_its_interval():
    report = SweepReport.model_validate(sweep_variants()["knee"])
    for ci, words in (
        ((0.2, 0.4), "interval 0.2 to 0.4)"),
        ((0.4, 0.2), "interval 0.2 to 0.4)"),
        ((0.2, None), "interval 0.2 to beyond the strongest"),
        ((None, 0.4), "interval from before the weakest setting to 0.4)"),
        ((None, None), "interval wider than"),
        (None, "too few documents"),
    ):
        limit = Limit(limit=0.05, largest=report.points[2].value, at=0.3, ci=ci, rule="")
        assert words in sentence(report.model_copy(update={"largest_mild": limit}))
    limit = Limit(limit=0.05, largest=report.points[2].value, at=0.3, ci=(0.2, 0.4), rule="")
    for axis, words in (
        ("value", "at pattern = 0.3 (95"),
        ("s", "at s = 0.3 (95"),
        ("order", "at place 0.3 in the order"),
    ):
        knob = report.knob.model_copy(update={"field": "pattern", "axis": axis})
        assert words in sentence(report.model_copy(update={"largest_mild": limit, "knob": knob}))


def test_the_weakest_setting_is_the_weakest_that_the_model_takes():
    settings = [(value, None, kl, kl) for value, kl in ((4, 0.001), (3, 0.9), (2, 1.4))]
    report = sweep_report(course(settings, refused=0), field="rank", share=None)
    assert "Not even rank = 3 keeps the damage mild" in report["verdict"]


def test_before_a_collapse_the_verdict_has_the_gap_and_no_place_in_it():
    settings = [(0.1, 0.1, 0.001, 0.001), (0.2, 0.2, 0.002, 0.002), (0.3, 0.3, 9.0, 9.0)]
    verdict = sweep_report(course(settings, broken=2))["verdict"]
    assert "mild up to sparsity = 0.2; the limit is passed between sparsity = 0.2 and the collapse at 0.3." in verdict


def test_of_as_many_points_as_coefficients_nobody_says_that_the_perplexity_turns():
    report = sweep_report(course(five_bits()), field="bits", step={"type": "quantize.rtn", "bits": 8}, share="1 - b/16")
    assert report["threshold"]["answer"] == "not identifiable"
    assert "Whether the perplexity turns cannot be known: 5 points for 5 free" in report["verdict"]
    assert "The perplexity turns" not in report["verdict"]


def test_a_turn_that_the_published_form_cannot_follow_is_told_with_the_form_that_shows_it():
    report = SweepReport.model_validate(sweep_report(course(stepping())))
    threshold = report.threshold
    assert threshold is not None and threshold.answer == "not identifiable"
    assert threshold.transition_test.p > threshold.transition_test.level
    assert threshold.turn_shown and threshold.missed
    assert threshold.form == "logistic" and threshold.form_turns_at == pytest.approx(0.3, abs=0.001)
    assert (
        "The perplexity turns, but the published form does not say where: a logistic curve, its middle at s = 0.3,"
        in (report.verdict)
    )


@pytest.mark.parametrize(
    ("update", "words"),
    [
        ({"lack_of_fit": 0.06}, "."),
        ({"lack_of_fit": None}, "."),
        ({"lack_of_fit": 0.021, "form": "power_law_then_exponential"}, _AS_PUBLISHED + "."),
        (
            {"lack_of_fit": 0.021, "form": "logistic"},
            _AS_PUBLISHED + "; a logistic curve describes the points better and turns at 0.333.",
        ),
    ],
)
def test_a_place_by_a_form_that_the_points_reject_is_told_as_such(update, words):
    report = SweepReport.model_validate(sweep_variants()["knee"])
    threshold = report.threshold
    assert threshold is not None and threshold.answer == "transition" and not threshold.unjudged

    def told(delta_aicc):
        other = {"transition_at": 0.333, "delta_aicc": delta_aicc}
        rivals = tuple(one.model_copy(update=other) if one.form == "logistic" else one for one in threshold.rivals)
        changed = threshold.model_copy(update={"rivals": rivals} | update)
        said = sentence(report.model_copy(update={"threshold": changed}))
        found = said[said.index("The perplexity turns at s0") :].split("95 % interval", 1)[1]
        return found.split(")", 1)[1]

    assert told(-3.0).startswith(words)
    # Within 2 of the least AICc the error at left-out points decides.
    assert told(1.5).startswith(words.replace("describes the points better", "predicts left-out points better"))


def test_the_best_form_turns_where_its_own_knee_is_and_nowhere_if_it_has_none():
    knee, straight = (SweepReport.model_validate(sweep_variants()[name]).threshold for name in ("knee", "straight"))
    assert knee is not None and straight is not None and not knee.missed and not straight.missed
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
        assert threshold is not None
        assert threshold.model_copy(update=update).turn_shown is shown, (name, update)
