"""Which windows the noise floor is measured on."""

from itertools import pairwise

import pytest

from workers.diagnosis.floor import floor_windows


@pytest.mark.parametrize(
    ("windows", "length", "expected"),
    [
        (1, 512, 1),
        (3, 512, 3),  # a text of fewer than four windows: all of it
        (20, 512, 4),  # a tenth would be two windows, which leave hardly an interval
        (60, 512, 6),  # a tenth
        (1000, 512, 8),  # 4,096 tokens
        (1000, 2048, 2),  # 4,096 tokens are two windows
        (10, 8192, 1),  # never none
        (400, 64, 40),
    ],
)
def test_the_noise_floor_takes_a_tenth_of_the_text_within_limits(windows: int, length: int, expected: int) -> None:
    chosen = floor_windows([length] * windows)
    assert len(chosen) == expected
    assert chosen == sorted(set(chosen))
    assert max(chosen) < windows


def test_the_noise_floors_windows_lie_all_over_the_text() -> None:
    chosen = floor_windows([512] * 100)
    assert len(chosen) == 8
    gaps = [later - earlier for earlier, later in pairwise(chosen)]
    assert min(gaps) >= 12
    assert max(gaps) <= 13
    assert chosen[0] <= 7
    assert chosen[-1] >= 92
