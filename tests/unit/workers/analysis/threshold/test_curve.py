"""A curve is sorted, checked, and in logarithms."""

import numpy as np
import pytest

from workers.analysis.threshold.curve import MOST_POINTS, Curve


def test_points_come_in_any_order_and_stand_in_rising_order() -> None:
    curve = Curve.of([0.5, 0.1, 1.0, 0.3, 0.2], [5, 1, 10, 3, 2])
    assert curve.s_N.tolist() == [0.1, 0.2, 0.3, 0.5, 1.0]
    assert np.exp(curve.log_N) == pytest.approx([1, 2, 3, 5, 10])
    assert len(curve) == 5


def test_a_point_can_be_left_out() -> None:
    curve = Curve.of([0.1, 0.2, 0.3, 0.4, 0.5], [1, 2, 3, 4, 5]).without(1)
    assert curve.s_N.tolist() == [0.1, 0.3, 0.4, 0.5]
    assert np.exp(curve.log_N) == pytest.approx([1, 3, 4, 5])


@pytest.mark.parametrize(
    ("s", "values", "said"),
    [
        ([0.1, 0.2, 0.3, 0.4], [1, 2, 3, 4], "4 points"),
        (np.linspace(0.001, 1, MOST_POINTS + 1), np.ones(MOST_POINTS + 1), "201 points"),
        ([0.0, 0.2, 0.3, 0.4, 0.5], [1, 2, 3, 4, 5], "above 0"),
        ([0.1, 0.2, 0.3, 0.4, 1.5], [1, 2, 3, 4, 5], "at most at 1"),
        ([0.1, 0.2, 0.3, 0.4, np.nan], [1, 2, 3, 4, 5], "at most at 1"),
        ([0.1, 0.2, 0.3, 0.4, 0.4], [1, 2, 3, 4, 5], "twice"),
        ([0.1, 0.2, 0.3, 0.4, 0.5], [1, 2, 3, 4, 0], "positive"),
        ([0.1, 0.2, 0.3, 0.4, 0.5], [1, 2, 3, 4, np.inf], "finite"),
        ([0.1, 0.2, 0.3, 0.4, 0.5], [1, 2, 3, 4], "two equal rows"),
    ],
)
def test_what_is_no_curve_is_refused(s: list[float], values: list[float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Curve.of(s, values)
