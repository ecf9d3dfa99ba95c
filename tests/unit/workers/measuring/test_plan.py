"""What one attempt scores, and what a later one may go on from."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.values import random_values
from workers.measuring.plan import Scratch, spread


@given(st.lists(st.integers(1, 600), min_size=1, max_size=300), st.integers(1, 5000))
def test_spread_takes_about_the_tokens_asked_for_evenly_and_in_order(lengths: list[int], tokens: int) -> None:
    chosen = spread(lengths, tokens=tokens)
    assert chosen == sorted(set(chosen))
    assert 0 <= chosen[0] <= chosen[-1] < len(lengths)
    if sum(lengths) <= tokens:
        assert chosen == list(range(len(lengths)))
    else:
        expected = max(1, round(len(lengths) * tokens / sum(lengths)))
        assert len(chosen) == expected
        gaps = np.diff(chosen)
        assert gaps.size == 0 or gaps.max() - gaps.min() <= 1


def test_what_was_scored_is_found_again_in_order(tmp_path: Path) -> None:
    first, second = random_values(5, seed=1), random_values(7, seed=2)
    scratch = Scratch.open(tmp_path / "candidate", "plan")
    scratch.add(0, 2, first)
    scratch.add(2, 3, second)
    found = Scratch.open(tmp_path / "candidate", "plan").parts()
    assert [(low, high) for low, high, _ in found] == [(0, 2), (2, 3)]
    np.testing.assert_array_equal(found[0][2].kl, first.kl)
    np.testing.assert_array_equal(found[1][2].kl, second.kl)


def test_another_plan_finds_nothing(tmp_path: Path) -> None:
    Scratch.open(tmp_path / "candidate", "plan").add(0, 2, random_values(5, seed=1))
    assert Scratch.open(tmp_path / "candidate", "other").parts() == []
    assert Scratch.open(tmp_path / "candidate", "plan").parts() == []


@pytest.mark.parametrize("damage", ["truncate", "remove"])
def test_a_damaged_or_missing_part_ends_what_can_be_used(tmp_path: Path, damage: str) -> None:
    scratch = Scratch.open(tmp_path / "candidate", "plan")
    for first in range(3):
        scratch.add(first, first + 1, random_values(4, seed=first))
    middle = sorted(scratch.folder.glob("values-*.npz"))[1]
    if damage == "remove":
        middle.unlink()
    else:
        middle.write_bytes(middle.read_bytes()[:100])
    assert [(low, high) for low, high, _ in scratch.parts()] == [(0, 1)]
