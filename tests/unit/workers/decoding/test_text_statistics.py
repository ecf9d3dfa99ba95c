"""Statistics of texts beside closed forms and other algorithms."""

import functools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.stopping import StoppedError, stop_after
from workers.decoding.text_statistics import (
    distinct_n,
    edit_distance,
    edit_distances,
    first_divergent,
    rep_n,
    shared_prefix,
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


def test_edit_distances_of_long_texts_may_be_broken_off() -> None:
    edit_distances([1] * 100, [2] * 100, [100], check_cancelled=stop_after())
    with pytest.raises(StoppedError):
        edit_distances([1] * 5000, [2] * 50, [5000], check_cancelled=stop_after(1))


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
