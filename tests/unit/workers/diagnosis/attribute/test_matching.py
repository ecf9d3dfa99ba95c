"""The matching against all of them, tried one by one, and against hand-made rows of layers."""

from itertools import combinations

import numpy as np
import pytest

from workers.diagnosis.attribute.matching import GAP_PRICE, Gap, gaps_between, match


def best_of_all(similarity):
    """The largest score over every order-preserving matching."""
    rows, columns = similarity.shape
    scores = []
    for count in range(min(rows, columns) + 1):
        for ours in combinations(range(rows), count):
            for theirs in combinations(range(columns), count):
                price = GAP_PRICE * (rows + columns - 2 * count)
                scores.append(sum(similarity[i, j] for i, j in zip(ours, theirs, strict=True)) - price)
    return float(max(scores))


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (5, 3), (5, 5), (6, 4), (0, 3)])
def test_no_other_matching_is_better(shape):
    rng = np.random.default_rng(shape[0] * 10 + shape[1])
    for _ in range(10):
        similarity = rng.random(shape) ** 3
        found = match(similarity)
        worth = sum(similarity[pair] for pair in found.pairs) - GAP_PRICE * (sum(shape) - 2 * len(found.pairs))
        assert worth == pytest.approx(best_of_all(similarity), abs=1e-12)
        assert all(a[0] < b[0] and a[1] < b[1] for a, b in zip(found.pairs, found.pairs[1:], strict=False))


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (6, 6), (2, 9)])
def test_no_gap_has_layers_of_both_models_however_little_alike_they_are(shape):
    """So that what is put into the reference through a map never stands in the place of its own layers."""
    rng = np.random.default_rng(sum(shape))
    for share in (0.0, 0.1, 0.5, 1.0):
        for _ in range(20):
            similarity = rng.random(shape) * (rng.random(shape) < share)
            assert not any(gap.reference and gap.candidate for gap in match(similarity).gaps)


def test_of_equal_matchings_the_earlier_one_is_taken():
    similarity = np.zeros((2, 3))
    similarity[0, [0, 1]] = similarity[1, 2] = 1.0  # layer 0 of the reference is as like to 0 as to 1
    assert match(similarity).pairs == ((0, 0), (1, 2))


@pytest.mark.parametrize(("gain", "told"), [(0.01, True), (-0.01, False)])
def test_a_layer_gone_and_one_more_are_told_where_that_is_worth_its_price(gain, told):
    shifted = np.zeros((3, 3))
    shifted[1, 0] = shifted[2, 1] = GAP_PRICE + gain / 2
    found = match(shifted)
    assert found.pairs == (((1, 0), (2, 1)) if told else ((0, 0), (1, 1), (2, 2)))
    assert found.gaps == ((Gap((0,), (), 1, 0), Gap((), (2,), 3, 3)) if told else ())


def test_gaps_are_what_the_pairs_leave_out():
    assert gaps_between([(1, 0), (2, 3)], 4, 4) == (Gap((0,), (), 1, 0), Gap((), (1, 2), 2, 3), Gap((3,), (), 4, 4))
    assert gaps_between([(0, 0), (1, 1)], 2, 2) == ()
