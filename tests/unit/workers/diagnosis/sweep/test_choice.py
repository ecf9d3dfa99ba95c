"""Which setting is measured next: against simulated curves whose knee is known."""

import numpy as np
import pytest

from workers.analysis.threshold import published
from workers.analysis.threshold.bounds import Bounds
from workers.analysis.threshold.curve import Curve
from workers.analysis.threshold.interval import knee_interval
from workers.diagnosis.sweep.choice import expected_width, first_look, next_by_knee, open_stretch, widest_gap

S = np.linspace(0.05, 0.8, 31)
OPEN = Bounds()


def simulated(rng, knee):
    beyond = np.maximum(S - knee, 0.0)
    return 2.5 + 0.25 * np.log(np.minimum(S, knee)) + 2 * beyond + 9 * beyond**2 + 0.01 * rng.standard_normal(len(S))


def chosen(log_y, budget):
    places = first_look(len(S), budget)
    while len(places) < budget:
        place = next_by_knee(S, sorted(places), log_y[sorted(places)], OPEN)
        assert place is not None and place not in places
        places.append(place)
    return sorted(places)


def test_the_first_look_is_even_and_holds_both_ends():
    assert first_look(31, 12) == [0, 6, 12, 18, 24, 30]
    assert first_look(31, 3) == [0, 15, 30]
    assert first_look(4, 12) == [0, 1, 2, 3]


def test_a_budget_spent_by_choice_narrows_the_knee_more_than_an_even_one():
    rng = np.random.default_rng(1)
    widths = []
    for _ in range(8):
        knee = rng.uniform(0.25, 0.6)
        log_y = simulated(rng, knee)
        even = sorted({round(index * 30 / 11) for index in range(12)})
        row = []
        for places in (even, chosen(log_y, 12)):
            curve = Curve.of(S[places], np.exp(log_y[places]))
            fit = published.fit(curve, OPEN)
            found = knee_interval(curve, OPEN, fit, resamples=199)
            row.append(found.high - found.low)
        widths.append(row)
    even, adaptive = np.mean(widths, axis=0)
    assert adaptive < 0.9 * even


def test_what_is_expected_to_narrow_most_lies_at_the_knee():
    rng = np.random.default_rng(2)
    log_y = simulated(rng, 0.4)
    places = first_look(31, 12)
    width_M = expected_width(S, Curve.of(S[places], np.exp(log_y[places])), OPEN)
    assert 0.2 < S[int(width_M.argmin())] < 0.6


def test_nothing_is_chosen_where_all_is_measured():
    assert next_by_knee(S[:6], list(range(6)), np.arange(6.0), OPEN) is None
    assert widest_gap(3, [0, 1, 2]) is None


def test_without_a_share_the_place_where_a_limit_is_passed_lies_behind_the_last_setting_within_it():
    assert open_stretch([0, 8, 16], [True, True, False]) == (8, 16)
    assert open_stretch([0, 8, 12, 16], [True, True, False, False]) == (8, 12)
    assert open_stretch([0, 4, 8, 16], [True, False, True, False]) == (0, 4), "with every weaker one"
    assert open_stretch([0, 1, 3], [True, False, False]) is None, "neighbours"
    assert open_stretch([0, 8], [False, False]) is None
    assert open_stretch([0, 8], [True, True]) is None
    assert widest_gap(4, [0, 1, 3]) == 2 and widest_gap(9, [0, 8]) == 4


def test_fewer_points_than_a_curve_takes_are_refused():
    with pytest.raises(ValueError, match="points"):
        next_by_knee(S, [0, 10, 20], [1.0, 2.0, 3.0], OPEN)
