import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.grafana.axes import runs, shown, ticks


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 0.547, [0, 0.2, 0.4]),
        (-0.09, 0.103, [-0.05, 0, 0.05, 0.1]),
        (0, 12.7, [0, 5, 10]),
        (0, 100, [0, 50, 100]),
        (-0.42, 3.67, [0, 1, 2, 3]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_lie_within_the_axis_and_are_few_and_more_than_one(low: float, width: float) -> None:
    high = low + width
    found = ticks(low, high)
    assert 2 <= len(found) <= 5
    slack = 1e-6 * (high - low) + 1e-9 * abs(low)
    assert all(low - slack <= value <= high + slack for value in found)
    steps = [after - before for before, after in itertools.pairwise(found)]
    digits = steps[0] / 10 ** math.floor(math.log10(steps[0]) + 1e-6)
    assert min(abs(digits - each) for each in (1, 2, 5, 10)) < 1e-3


def test_a_line_is_cut_where_nothing_was_known() -> None:
    points = [(0.0, 1.0), (1.0, 2.0), (4.0, 3.0), (9.0, 4.0)]
    assert runs(points, 1.0) == [points[:3], points[3:]]
    assert runs([], 1.0) == []


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [(0.4567, "percentunit", "46 %"), (0.25, "s", "250 ms"), (0.0375, "suffix: nats", "0.0375 nats")],
)
def test_values_are_written_as_grafana_writes_them(value: float, unit: str, expected: str) -> None:
    assert shown(value, unit, None) == expected
