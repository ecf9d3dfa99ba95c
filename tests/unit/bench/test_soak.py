import random

import pytest

from tests.bench.soak import rows_of, trend

DRAW = random.Random(0)
TIMES = [240.0 + 5 * step for step in range(72)]


def grows(unit: str, values: list[float]) -> list[str]:
    return rows_of({("worker", "resident", unit): list(zip(TIMES, values, strict=True))})[1]


def test_a_slope_is_found_per_minute_below_noise() -> None:
    level, slope, low = trend([(at, 500 + 3 * at / 60 + DRAW.gauss(0, 1)) for at in TIMES])
    assert level == pytest.approx(521, abs=1)
    assert slope == pytest.approx(3, abs=0.3)
    assert 2 < low < slope


def test_a_leak_is_red() -> None:
    assert grows("MB", [500 + 5 * at / 60 + DRAW.gauss(0, 3) for at in TIMES])
    assert grows("1", [40.0 + at // 60 for at in TIMES])


def test_noise_and_what_is_not_worth_a_word_are_not() -> None:
    assert not grows("MB", [500 + DRAW.gauss(0, 30) for _ in TIMES])
    assert not grows("MB", [500 + 0.5 * at / 60 for at in TIMES])
    assert not grows("1", [40.0 + DRAW.randrange(9) for _ in TIMES])
