"""Bounds: open, fixed, and within the measured range."""

import numpy as np
import pytest

from workers.analysis.threshold.bounds import Bounds
from workers.analysis.threshold.curve import Curve

CURVE = Curve.of([0.1, 0.2, 0.3, 0.4, 0.5], [1, 2, 3, 4, 5])


def test_the_box_bounds_the_logarithm_of_a() -> None:
    lower_K, upper_K = Bounds(a=(2, 50), b=(0, None), k1=(None, 3), k2=(0, 0)).box()
    assert lower_K.tolist() == [np.log(2), 0, -np.inf, 0]
    assert upper_K.tolist() == [np.log(50), np.inf, 3, 0]


@pytest.mark.parametrize("low", [None, 0, -3])
def test_a_lower_bound_of_a_that_is_not_positive_is_open(low: float | None) -> None:
    assert Bounds(a=(low, None)).box()[0][0] == -np.inf


@pytest.mark.parametrize(
    ("s0", "expected"), [((None, None), (0.1, 0.5)), ((0.2, None), (0.2, 0.5)), ((0.0, 0.3), (0.1, 0.3))]
)
def test_the_knee_is_looked_for_within_bounds_and_measured_range(
    s0: tuple[float | None, float | None], expected: tuple[float, float]
) -> None:
    assert Bounds(s0=s0).knee_range(CURVE) == expected


def test_bounds_that_miss_the_range_or_cross_are_refused() -> None:
    with pytest.raises(ValueError, match=r"outside the measured range \[0.1, 0.5\]"):
        Bounds(s0=(0.6, 0.8)).knee_range(CURVE)
    with pytest.raises(ValueError, match="k1: the lower bound 2 is above the upper bound 1"):
        Bounds(k1=(2, 1))
    with pytest.raises(ValueError, match="a is positive"):
        Bounds(a=(None, 0))
