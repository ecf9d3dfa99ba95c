from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.mitigation.repair.allocation import allocate, budget_of

COSTS = {"q": 30, "k": 20, "down": 70}


def spent(ranks, costs):
    return sum(rank * costs[name] for name, rank in ranks.items())


def test_the_budget_is_that_of_the_mean_rank():
    assert budget_of(COSTS, 16) == 16 * 120


def test_equal_costs_give_the_optimum_of_all_allocations():
    gains = {"a": [9.0, 4.0, 1.0], "b": [8.0, 7.0, 0.1], "c": [3.0, 2.9, 2.8]}
    costs, limits = dict.fromkeys(gains, 5), dict.fromkeys(gains, 3)
    for units in range(10):
        ranks = allocate(gains, costs, limits, 5 * units)
        best = max(
            sum(sum(gains[name][:rank]) for name, rank in zip(gains, choice, strict=True))
            for choice in product(range(4), repeat=3)
            if sum(choice) <= units
        )
        assert sum(sum(gains[name][:rank]) for name, rank in ranks.items()) == pytest.approx(best)


def test_every_module_has_the_floor_and_none_more_than_its_limit():
    gains = {"q": [100.0] * 50, "k": [1.0] * 50, "down": []}
    ranks = allocate(gains, COSTS, {"q": 20, "k": 50, "down": 50}, budget_of(COSTS, 10), floor=3)
    assert ranks["q"] == 20
    assert min(ranks.values()) >= 3


def test_what_known_gains_leave_over_is_spread_evenly():
    costs = {"a": 10, "b": 10, "c": 10}
    ranks = allocate({"a": [5.0] * 6, "b": [], "c": []}, costs, dict.fromkeys(costs, 8), 120)
    assert ranks == {"a": 6, "b": 3, "c": 3}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_nothing_more_would_fit_and_the_sum_never_exceeds_the_budget(data):
    costs = data.draw(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 90), min_size=1))
    gains = {name: sorted(data.draw(st.lists(st.floats(0, 9), max_size=9)), reverse=True) for name in costs}
    limits = {name: data.draw(st.integers(0, 12)) for name in costs}
    budget = data.draw(st.integers(0, 3000))
    ranks = allocate(gains, costs, limits, budget, floor=data.draw(st.integers(0, 3)))
    left = budget - spent(ranks, costs)
    assert left >= 0
    assert all(0 <= ranks[name] <= limits[name] for name in costs)
    assert all(costs[name] > left for name in costs if ranks[name] < limits[name])
