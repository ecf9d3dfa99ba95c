"""Successive halving against what a full search would find, and within its budget."""

import numpy as np
import pytest

from workers.diagnosis.attribute.halving import choose, halve, plan


def noisy_measure(truth, seed, spread, calls):
    """Means of the first batches of draws around the truth: more batches, less noise."""
    draws = np.random.default_rng(seed).normal(truth[:, None], spread, (len(truth), 64))

    def measure(arm, batches):
        calls.append((arm, batches))
        return float(draws[arm, :batches].mean())

    return measure


def test_each_step_sees_twice_as_much_of_half_as_many_but_never_of_fewer_than_asked_for():
    assert plan(10, 8, 3, 0).steps == ((10, 8),)
    assert plan(10, 8, 3, 0).cost == 10
    made = plan(64, 8, 4, 3)
    assert made.steps == ((64, 1), (32, 2), (16, 4), (8, 8))
    assert made.cost == pytest.approx((64 * 1 + 32 * 1 + 16 * 2 + 8 * 4) / 8)
    assert plan(64, 8, 20, 3).steps == ((64, 1), (32, 2), (20, 4), (20, 8))


def test_as_few_halvings_as_the_budget_allows():
    costs = [1.0] * 32
    assert choose(costs, 8, 4, 32.0)[1].steps == ((32, 8),)
    count, made = choose(costs, 8, 4, 20.0)
    assert count == 32
    assert made.cost <= 20
    assert len(made.steps) == 3
    count, made = choose(costs, 8, 4, 5.0)
    assert 0 < count < 32
    assert made.cost <= 5
    assert choose([50.0, 50.0], 4, 1, 1.0)[0] == 1, "one part is measured whatever it costs"


@pytest.mark.parametrize("budget", [8.0, 20.0, 200.0])
def test_the_worst_parts_are_found_within_the_budget(budget):
    rng = np.random.default_rng(1)
    truth = np.concatenate([[9.0, 7.0, 5.0], rng.uniform(0, 1, 61)])
    order = rng.permutation(64)
    calls = []
    arms = [int(arm) for arm in order]
    result = halve(arms, [0.5] * 64, noisy_measure(truth, 2, 0.5, calls), batches=64, keep=3, budget=budget)
    best = sorted(result.scores, key=lambda index: -result.scores[index])[:3]
    assert [arms[index] for index in best] == [0, 1, 2]
    assert all(result.batches[index] == 64 for index in best)
    assert result.cost <= budget + 1e-9
    assert result.left_out == ()
    # nothing is measured twice on the same text
    assert len(calls) == len(set(calls))


def test_what_the_budget_does_not_reach_for_is_left_out_from_the_end():
    result = halve(list("abcdefgh"), [1.0] * 8, lambda *_: 1.0, batches=2, keep=2, budget=3.0)
    assert result.left_out
    assert [*"abcdefgh"][-len(result.left_out) :] == list(result.left_out)
    assert set(result.scores) == set(range(8 - len(result.left_out)))


def test_what_cannot_be_told_stays_in():
    def measure(arm, _):
        return float("inf") if arm == "c" else 0.0

    result = halve(list("abcd"), [1.0] * 4, measure, batches=4, keep=1, budget=2.0)
    assert result.batches[2] == 4
