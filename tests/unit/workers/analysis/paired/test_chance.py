"""Guessing: exact probabilities against scipy and simulation."""

import numpy as np
import pytest
from scipy import stats

from workers.analysis.paired.chance import accuracy, commonest, p_value


@pytest.mark.parametrize("right", [0, 3, 25, 40, 100])
def test_with_equal_choices_it_is_the_binomial_tail(right: int) -> None:
    expected = stats.binomtest(right, 100, 0.25, alternative="greater").pvalue
    assert p_value(right, [4] * 100) == pytest.approx(expected)


def test_with_unequal_choices_it_is_what_guessers_reach() -> None:
    choices = [2] * 20 + [4] * 30 + [5] * 10
    rng = np.random.default_rng(0)
    reached = sum(rng.binomial(choices.count(count), 1 / count, 40_000) for count in (2, 4, 5))
    for right in (14, 20, 26):
        assert p_value(right, choices) == pytest.approx(np.mean(reached >= right), abs=0.01)
    assert accuracy(choices) == pytest.approx((20 / 2 + 30 / 4 + 10 / 5) / 60)


def test_more_right_answers_than_items_are_refused() -> None:
    with pytest.raises(ValueError, match="3 right answers of 2"):
        p_value(3, [4, 4])


def test_where_all_items_have_the_same_choices_a_guess_takes_the_commonest() -> None:
    assert commonest([(("no", "yes"), gold) for gold in [0] * 62 + [1] * 38]) == 0.62
    assert commonest([(("no", "yes"), n % 2) for n in range(10)]) == 0.0, "no more than uniform guessing"
    letters = [0] * 31 + [1] * 23 + [2] * 23 + [3] * 23
    assert commonest([(("A", "B", "C", "D"), gold) for gold in letters]) == 0.0, "as chance makes it: 4 P(≥ 31) = 0.4"
    assert commonest([(("no", "yes"), gold) for gold in [0] * 9 + [1] * 3]) == 0.0, "2 P(≥ 9 of 12) = 0.15"
    assert commonest([((f"a{n}", f"b{n}"), 0) for n in range(10)]) == 0.0, "the choices differ"
    assert commonest([((), 0), ((), 0)]) == 0.0, "generated answers"
