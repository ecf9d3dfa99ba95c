"""Answers of knobs whose harmless value lies among those asked for, and of those without an order."""

import math

import pytest

from app.contracts.request import Thresholds
from app.kinds.sweep.lossless import Setting
from app.models.strength import Order
from tests.support.sweep_reports import course, sweep_report
from workers.diagnosis.sweep.limits import mild, near_lossless
from workers.diagnosis.sweep.sides import form_free

# (value, s, KL, loss): harmless at 1; 0.5 is worse than anything above.
TEMPERATURE = [(0.5, None, 0.9, 0.6), (1.0, None, 0.001, 0.001), (1.5, None, 0.02, 0.02), (2.0, None, 0.2, 0.3)]
AROUND = Order("around", (1, 2, 0, 3), 1.0, ((1, 0), (1, 2, 3)))
DAMPING = [(0.01, None, 0.3, 0.1), (0.1, None, 0.01, 0.4), (1.0, None, 0.02, 0.05)]


def test_each_side_has_its_own_limits_and_none_is_that_of_the_whole():
    whole, sides = form_free(course(TEMPERATURE, order=AROUND), Thresholds(), seed=0)
    assert (whole.largest_mild, whole.near_lossless, whole.slopes) == (None, None, None)
    below, above = sides
    assert (below.side, above.side) == ("below", "above")
    assert below.largest_mild.largest == Setting(value=1.0) and above.largest_mild.largest == Setting(value=1.5)
    # Log-linear between the two settings around the limit of 0.05.
    assert below.largest_mild.at == pytest.approx(1 - 0.5 * math.log(50) / math.log(900), abs=1e-3)
    assert above.largest_mild.at == pytest.approx(1.5 + 0.5 * math.log(2.5) / math.log(10), abs=1e-3)
    assert below.slopes is None or below.slopes.above is None
    assert above.slopes.below == pytest.approx(0.019 / 0.5, abs=1e-3)


def test_a_side_is_what_a_sweep_of_its_values_alone_would_say():
    _, sides = form_free(course(TEMPERATURE, order=AROUND), Thresholds(), seed=0)
    alone = [TEMPERATURE[place] for place in (1, 2, 3)]
    made = course(alone)
    for found, expected in (
        (sides[1].largest_mild, mild(made, Thresholds())),
        (sides[1].near_lossless, near_lossless(made, seed=0)),
    ):
        assert found.largest == expected.largest and found.at == pytest.approx(expected.at, rel=0.02)


def test_a_single_window_leaves_both_sides_unjudged():
    _, sides = form_free(course(TEMPERATURE, order=AROUND, documents=1), Thresholds(), seed=0)
    assert all(side.largest_mild is None for side in sides)


def test_the_severity_is_that_of_the_setting_furthest_from_the_neutral_one():
    report = sweep_report(course(TEMPERATURE, order=AROUND), field="temperature", share=None)
    assert [point["value"] for point in report["points"]] == [1.0, 1.5, 0.5, 2.0]
    assert report["severity"] == report["points"][-1]["severity"] == "severe"


def test_without_an_order_each_setting_is_judged_by_itself_by_each_quantity():
    made = course(DAMPING, order=Order("unknown", (0, 1, 2)))
    assert [point.value for point in made.points] == [0.1, 1.0, 0.01]
    found, sides = form_free(made, Thresholds(), seed=0)
    assert sides == () and found.slopes is None and made.axis_kind == "order"
    assert (found.largest_mild.strongest, found.largest_mild.at, found.largest_mild.ci) == (1.0, None, None)
    assert found.near_lossless.strongest == 0.01, "ln perplexity rises by 0.05 and 0.1 at two, by 0.4 at the other"


def test_refused_settings_come_first_and_collapses_last_where_there_is_no_order():
    made = course([*DAMPING, (10.0, None, 0.001, 0.001)], order=Order("unknown", (0, 1, 2, 3)), refused=2, broken=3)
    assert [point.value for point in made.points] == [1.0, 0.1, 0.01, 10.0]
    found = mild(made, Thresholds())
    assert found.largest == Setting(value=0.1)


def test_the_interval_of_a_limit_is_the_whole_gap_of_a_knob_whose_damage_has_no_known_shape():
    settings = [(0.1, 0.1, 0.01, 0.05), (0.3, 0.3, 0.4, 0.5)]
    for found in (mild(course(settings), Thresholds()), near_lossless(course(settings), seed=0)):
        assert found.ci[0] > 0.1 and found.ci[1] == 0.3, "a share: no earlier than on a straight line"
    shapeless = course([(value, None, kl, loss) for value, _, kl, loss in settings])
    for found in (mild(shapeless, Thresholds()), near_lossless(shapeless, seed=0)):
        assert found.ci == pytest.approx((0.1, 0.3))
