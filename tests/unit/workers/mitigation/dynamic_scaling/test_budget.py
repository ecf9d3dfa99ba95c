"""The bit budget against every possible allocation."""

from itertools import pairwise, product

import pytest

from workers.mitigation.dynamic_scaling.budget import Choice, allocate, hull


def unit(size, nats, fall=4.0):
    """A unit whose cost falls by `fall` a bit."""
    return [Choice(bits, size * (bits + 0.25), nats * fall ** (3 - bits)) for bits in (3, 4, 5, 6, 8)]


UNITS = {"a": unit(100, 1.0), "b": unit(100, 0.1), "c": unit(300, 0.5), "d": unit(50, 0.02)}


@pytest.mark.parametrize("mean", [3.5, 4.0, 4.3, 5.0, 7.0])
def test_storage_is_kept_and_no_single_step_up_that_fits_is_left_out(mean):
    budget = 550 * (mean + 0.25)
    found = allocate(UNITS, budget)
    used = sum(size * (found[name].bits + 0.25) for name, size in (("a", 100), ("b", 100), ("c", 300), ("d", 50)))
    assert used <= budget
    for name, choices in UNITS.items():
        now = found[name]
        for more in choices:
            if more.storage > now.storage:
                assert used + more.storage - now.storage > budget, (name, more)


@pytest.mark.parametrize("mean", [3.5, 4.0, 5.0])
def test_no_allocation_saves_more_than_a_step_of_one_unit_beyond(mean):
    budget = 550 * (mean + 0.25)
    found = allocate(UNITS, budget)
    ours = sum(one.nats for one in found.values())
    best = min(
        sum(one.nats for one in chosen)
        for chosen in product(*UNITS.values())
        if sum(one.storage for one in chosen) <= budget
    )
    largest = max(low.nats - high.nats for choices in UNITS.values() for low, high in pairwise(choices))
    assert best <= ours <= best + largest


def test_a_width_that_costs_more_than_a_smaller_one_is_never_taken():
    choices = [Choice(3, 30, 1.0), Choice(4, 40, 1.5), Choice(5, 50, 0.2)]
    assert [one.bits for one in hull(choices)] == [3, 5]
    assert allocate({"a": choices}, 49) == {"a": choices[0]}


def test_a_budget_below_the_fewest_bits_is_refused():
    with pytest.raises(ValueError, match="fewest bits"):
        allocate(UNITS, 550 * 3)
