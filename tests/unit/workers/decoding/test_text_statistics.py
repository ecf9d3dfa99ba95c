"""Statistics of texts beside closed forms, textbook examples, other algorithms and scipy."""

import functools
import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from workers.decoding.text_statistics import (
    compared,
    distinct_n,
    edit_distance,
    edit_distances,
    first_divergent,
    rep_n,
    shared_prefix,
    survival_curve,
    survival_of,
)

Texts = st.lists(st.integers(0, 3), max_size=9)


def _codes(text: str) -> list[int]:
    return [ord(letter) for letter in text]


@pytest.mark.parametrize(
    ("one", "other", "place", "shared"),
    [
        ([1, 2, 3], [1, 2, 3], None, 3),
        ([1, 2, 3], [1, 9, 3], 1, 1),
        ([1, 2], [1, 2, 3], 2, 2),
        ([], [4], 0, 0),
        ([], [], None, 0),
    ],
)
def test_where_two_texts_part(one: list[int], other: list[int], place: int | None, shared: int) -> None:
    assert first_divergent(one, other) == first_divergent(other, one) == place
    assert shared_prefix(one, other) == shared_prefix(other, one) == shared


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [("kitten", "sitting", 3), ("saturday", "sunday", 3), ("", "abc", 3), ("abc", "", 3), ("abcd", "bcda", 2)],
)
def test_known_edit_distances(one: str, other: str, distance: int) -> None:
    assert edit_distance(_codes(one), _codes(other)) == distance


def _recursive(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    @functools.cache
    def of(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        return min(of(i - 1, j) + 1, of(i, j - 1) + 1, of(i - 1, j - 1) + (one[i - 1] != other[j - 1]))

    return of(len(one), len(other))


@given(Texts, Texts)
def test_edit_distances_are_those_of_the_recursion_at_every_length(one: list[int], other: list[int]) -> None:
    lengths = list(range(11))

    assert edit_distances(one, other, lengths).tolist() == [
        _recursive(tuple(one[:n]), tuple(other[:n])) for n in lengths
    ]


@pytest.mark.parametrize(
    ("tokens", "n", "distinct"),
    [
        ([1, 2, 1, 2, 1], 1, 2 / 5),
        ([1, 2, 1, 2, 1], 2, 2 / 4),
        ([1, 2, 1, 2, 1], 3, 2 / 3),
        ([7] * 10, 4, 1 / 7),
        (range(10), 4, 1.0),
    ],
)
def test_repetition_is_one_less_the_share_of_different_n_grams(tokens: Sequence[int], n: int, distinct: float) -> None:
    assert distinct_n(tokens, n) == pytest.approx(distinct)
    assert rep_n(tokens, n) == pytest.approx(1 - distinct)


def test_a_text_without_n_grams_has_no_repetition() -> None:
    assert distinct_n([1, 2], 3) is None
    assert rep_n([1, 2], 3) is None
    assert rep_n([], 1) is None


# Remission of leukaemia patients on 6-MP, weeks (Freireich et al. 1963); + is censored.
REMISSION = [6, 6, 6, 7, 10, 13, 16, 22, 23]
STILL = [6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]


def test_the_textbook_curve() -> None:
    curve = survival_curve(REMISSION + STILL, [True] * 9 + [False] * 12)

    assert curve.times.tolist() == [6, 7, 10, 13, 16, 22, 23]
    np.testing.assert_allclose(curve.survival, [0.857, 0.807, 0.753, 0.690, 0.627, 0.538, 0.448], atol=5e-4)
    assert curve.at_risk.tolist() == [21, 17, 15, 12, 11, 7, 6]
    assert curve.events.tolist() == [3, 1, 1, 1, 1, 1, 1]
    assert curve.censored == 12
    assert curve.median == 23
    assert curve.median_interval == (13, None)
    assert [curve.at(time) for time in (0, 5.9, 6, 8)] == pytest.approx([1, 1, 18 / 21, 18 / 21 * 16 / 17])


def _scipy(times: Sequence[int], parted: Sequence[bool]) -> tuple[Any, Any, Any, Any]:
    """(times of events, survival, low, high)."""
    curve: Any = stats.ecdf(stats.CensoredData.right_censored(list(times), [not one for one in parted])).sf
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The confidence interval is undefined", category=RuntimeWarning)
        interval = curve.confidence_interval(method="log-log")
    events = np.isin(curve.quantiles, [t for t, one in zip(times, parted, strict=True) if one])
    columns = (curve.quantiles, curve.probabilities, interval.low.probabilities, interval.high.probabilities)
    return tuple(np.asarray(column)[events] for column in columns)  # type: ignore[return-value]


@pytest.mark.parametrize("seed", range(5))
def test_curve_and_interval_are_those_of_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    times, limits = rng.geometric(0.08, 40), rng.integers(5, 40, 40)
    parted = times <= limits
    seen = np.minimum(times, limits)

    ours = survival_curve(seen.tolist(), parted.tolist())

    when, survival, low, high = _scipy(seen.tolist(), parted.tolist())
    inside = ours.survival > 0
    assert inside.sum() > 5
    assert ours.times.tolist() == when.tolist()
    np.testing.assert_allclose(ours.survival, survival, rtol=1e-12)
    np.testing.assert_allclose(ours.low[inside], low[inside], rtol=1e-9)
    np.testing.assert_allclose(ours.high[inside], high[inside], rtol=1e-9)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Texts that part with probability 0.02 a token, limit 64: P(T > 32) is 0.98³³; 1,000 jobs of 32 prompts. The
    standard error of a coverage of 95 % is 0.7 points."""
    rng = np.random.default_rng(0)
    truth, covered = 0.98**33, 0
    for _ in range(1000):
        times = rng.geometric(0.02, 32) - 1
        curve = survival_curve(np.minimum(times, 64).tolist(), (times < 64).tolist())
        place = int(np.searchsorted(curve.times, 32, side="right")) - 1
        covered += place >= 0 and curve.low[place] <= truth <= curve.high[place]

    assert 0.93 <= covered / 1000 <= 0.975


def test_a_curve_that_reaches_zero_keeps_finite_limits() -> None:
    curve = survival_curve([1, 2, 2, 5], [True] * 4)

    assert curve.survival.tolist() == pytest.approx([0.75, 0.25, 0.0])
    assert curve.low[-1] == 0.0
    assert curve.high[-1] == curve.high[-2]
    assert (curve.low <= curve.survival).all()
    assert (curve.survival <= curve.high).all()
    alone = survival_curve([3, 3], [True, True])
    assert (alone.survival[0], alone.low[0], alone.high[0]) == (0.0, 0.0, 1.0)


def test_texts_that_never_part_leave_a_curve_of_one() -> None:
    curve = survival_of([compared([1, 2, 3], [1, 2, 3]), compared([4], [4])], 3)

    assert curve.times.size == 0
    assert curve.censored == 2
    assert curve.at(100) == 1.0
    assert curve.median is None
    assert curve.median_interval == (None, None)


def test_without_censoring_before_the_limit_the_curve_is_the_share_of_texts_that_agree() -> None:
    """A text that ended in agreement is at risk up to the limit: it never parts."""
    pairs = [compared([1, 2, 3, 4], [1, 2, 3, 9]), compared([5, 6], [5, 6]), compared([1, 1], [2, 2])]

    curve = survival_of(pairs, 4)

    assert [pair.parted_at for pair in pairs] == [3, None, 0]
    assert [pair.edits for pair in pairs] == [1, 0, 2]
    assert curve.times.tolist() == [0, 3]
    assert curve.survival.tolist() == pytest.approx([2 / 3, 1 / 3])
    assert curve.censored == 1


@pytest.mark.parametrize(("times", "parted"), [([], []), ([1, 2], [True])])
def test_a_curve_of_nothing_is_refused(times: list[int], parted: list[bool]) -> None:
    with pytest.raises(ValueError, match="times and"):
        survival_curve(times, parted)


def test_a_single_step_has_the_closed_form_of_the_interval() -> None:
    """One event of n: S = 1 − 1/n, se² of ln S is 1 / (n (n − 1))."""
    curve = survival_curve([2] + [9] * 19, [True] + [False] * 19)

    s, z = 0.95, stats.norm.ppf(0.975)
    width = z * math.sqrt(1 / (20 * 19)) / -math.log(s)
    assert curve.low[0] == pytest.approx(s ** math.exp(width))
    assert curve.high[0] == pytest.approx(s ** math.exp(-width))
