"""Pairs of texts against cases by hand and a plain recursion."""

import math
from functools import cache

import numpy as np
import pytest

from workers.diagnosis.trajectory.pairs import (
    bands_up_to,
    disagreements,
    distinct,
    edit_shares,
    first_difference,
    lengths_up_to,
    repetition,
)


def test_the_first_difference_counts_from_one_and_an_end_is_one():
    for one, other, position in (
        ([1, 2, 3], [1, 2, 4], 3),
        ([1], [2], 1),
        ([1, 2], [1, 2], None),
        ([1, 2], [1, 2, 3], 3),
        ([1, 2, 3], [1], 2),
    ):
        assert first_difference(one, other) == position


def test_disagreements_reach_to_the_shorter_text():
    assert disagreements([1, 2, 3, 4], [1, 9, 3]).tolist() == [False, True, False]


def levenshtein(one, other):
    @cache
    def distance(i, j):
        if not i or not j:
            return i + j
        return min(
            distance(i - 1, j) + 1, distance(i, j - 1) + 1, distance(i - 1, j - 1) + (one[i - 1] != other[j - 1])
        )

    return distance(len(one), len(other))


def test_edit_shares_are_levenshteins_over_the_longer_prefix():
    rng = np.random.default_rng(0)
    for _ in range(20):
        one, other = (tuple(rng.integers(0, 4, size=rng.integers(1, 14)).tolist()) for _ in range(2))
        lengths = (2, 5, 20)
        wanted = [
            levenshtein(one[:length], other[:length]) / max(len(one[:length]), len(other[:length]))
            for length in lengths
        ]
        assert edit_shares(one, other, lengths) == pytest.approx(wanted)


def test_repetition_is_the_share_of_ngrams_that_stood_before():
    assert repetition([1, 2, 1, 2, 1], 2) == pytest.approx(2 / 4)
    assert repetition([7, 7, 7, 7], 1) == pytest.approx(3 / 4)
    assert distinct([7, 7, 7, 8]) == pytest.approx(2 / 4)


def test_a_text_without_an_ngram_has_no_share_of_repeated_ones():
    assert math.isnan(repetition([1, 2], 3))
    assert math.isnan(distinct([]))
    assert repetition([1, 2, 3], 3) == 0


def test_lengths_double_and_bands_hold_every_position_once():
    for most, lengths in ((12, (12,)), (16, (16,)), (128, (16, 32, 64, 128)), (40, (16, 32, 40))):
        assert lengths_up_to(most) == lengths
    for most in (1, 8, 9, 100, 128):
        positions = [position for first, last in bands_up_to(most) for position in range(first, last + 1)]
        assert positions == list(range(1, most + 1))
