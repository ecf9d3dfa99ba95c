"""Draws: their variances on hand-made residuals, and the ratio of sums of squares."""

import numpy as np
import pytest

from workers.diagnosis.threshold.resampling import draw, excess, point_variances


def test_a_points_variance_is_two_thirds_common_and_one_third_its_own() -> None:
    """Mean of four points: leverage 1/4, three degrees of freedom."""
    residual_N = np.array([3.0, -1.0, -1.0, -1.0])
    variance_N = point_variances(residual_N, np.ones((4, 1)))
    common = 12 / 3
    assert variance_N == pytest.approx([2 / 3 * common + 1 / 3 * r**2 / 0.75 for r in residual_N])


def test_leverage_is_capped_and_dependent_tangents_count_once() -> None:
    tangent_NK = np.column_stack([[1.0, 0, 0, 0], [2.0, 0, 0, 0], [0.0, 0, 0, 0]])
    variance_N = point_variances(np.array([0.1, 1.0, 1.0, 1.0]), tangent_NK)
    common = 3.01 / 3
    assert variance_N[0] == pytest.approx(2 / 3 * common + 1 / 3 * 0.01 / 0.1)


def test_draws_have_the_mean_and_the_variances() -> None:
    mean_N, variance_N = np.array([1.0, -2.0, 5.0]), np.array([0.01, 1.0, 4.0])
    drawn_BN = draw(np.random.default_rng(0), mean_N, variance_N, 40_000)
    assert drawn_BN.shape == (40_000, 3)
    assert drawn_BN.mean(axis=0) == pytest.approx(mean_N, abs=0.04)
    assert drawn_BN.var(axis=0) == pytest.approx(variance_N, rel=0.04)


def test_the_excess_is_relative_and_of_two_perfect_fits_it_is_nothing() -> None:
    assert excess(3.0, 2.0, 10) == pytest.approx(0.5)
    assert excess(1e-28, 1e-30, 10) == pytest.approx(0.0, abs=1e-12)
