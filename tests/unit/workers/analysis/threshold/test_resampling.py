"""Draws: their variances on hand-made residuals, and the ratio of sums of squares."""

import numpy as np
import pytest
from scipy import optimize

from workers.analysis.threshold.curve import Array
from workers.analysis.threshold.resampling import draw, excess, point_variances


def growth(variance_N: Array, residual_N: Array) -> float:
    """Growth of ln variance from the first point to the last, without what the points' own residuals add."""
    trend_N = variance_N - residual_N**2 / 7
    return float(np.log(trend_N[-1] / trend_N[0]))


def test_a_points_variance_is_six_sevenths_common_and_one_seventh_its_own() -> None:
    """Mean of four points: leverage 1/4, three degrees of freedom; as large on the left as on the right, so even."""
    residual_N = np.array([2.0, -1.0, -1.0, 2.0])
    variance_N = point_variances(np.linspace(0.2, 0.8, 4), residual_N, np.ones((4, 1)))
    common = 10 / 3
    assert variance_N == pytest.approx([6 / 7 * common + 1 / 7 * r**2 / 0.75 for r in residual_N])


def test_leverage_is_capped_and_dependent_tangents_count_once() -> None:
    tangent_NK = np.column_stack([[1.0, 0, 0, 0], [2.0, 0, 0, 0], [0.0, 0, 0, 0]])
    variance_N = point_variances(np.linspace(0.2, 0.8, 4), np.array([0.1, 1.0, 1.0, 1.0]), tangent_NK)
    common = 3.01 / 3
    assert variance_N[0] == pytest.approx(6 / 7 * common + 1 / 7 * 0.01 / 0.1)


@pytest.mark.parametrize("true", [-np.log(9), 0.0, np.log(9)])
def test_noise_that_changes_along_s_is_found_where_there_are_points_enough(true: float) -> None:
    s_N = np.linspace(0.1, 0.9, 2000)
    noise_N = np.exp(0.5 * true * (s_N - 0.5) / 0.8)
    residual_N = noise_N * np.random.default_rng(0).standard_normal(2000)
    variance_N = point_variances(s_N, residual_N, np.full((2000, 1), 1e-9))
    assert growth(variance_N, residual_N) == pytest.approx(true, abs=0.2)
    assert variance_N.mean() == pytest.approx((noise_N**2).mean(), rel=0.1)


def test_few_points_move_the_noise_only_so_far_from_even() -> None:
    """Against the same likelihood without a prior, by scipy; no tangent, so that every residual is its noise."""
    s_N, residual_N = np.linspace(0.0, 1.0, 6), np.array([0.2, 0.3, 0.4, 0.8, 1.5, 2.0])
    z_N = s_N - 0.5

    def loss(at: Array) -> float:
        log_variance_N = at[0] + at[1] * z_N
        return float((log_variance_N + residual_N**2 * np.exp(-log_variance_N)).sum() / 2)

    free = optimize.minimize(loss, [0.0, 0.0]).x[1]
    held = optimize.minimize(lambda at: loss(at) + 0.5 * (at[1] / 2) ** 2, [0.0, 0.0]).x[1]
    found = growth(point_variances(s_N, residual_N, np.zeros((6, 1))), residual_N)
    assert found == pytest.approx(held, abs=0.07)
    assert 0.5 * free < found < 0.8 * free


def test_a_fit_through_every_point_leaves_even_noise() -> None:
    variance_N = point_variances(np.linspace(0.1, 0.9, 3), np.zeros(3), np.eye(3))
    assert (variance_N > 0).all()
    assert variance_N == pytest.approx(np.full(3, variance_N[0]))


def test_draws_have_the_mean_and_the_variances() -> None:
    mean_N, variance_N = np.array([1.0, -2.0, 5.0]), np.array([0.01, 1.0, 4.0])
    drawn_BN = draw(np.random.default_rng(0), mean_N, variance_N, 40_000)
    assert drawn_BN.shape == (40_000, 3)
    assert drawn_BN.mean(axis=0) == pytest.approx(mean_N, abs=0.04)
    assert drawn_BN.var(axis=0) == pytest.approx(variance_N, rel=0.04)


def test_the_excess_is_relative_and_of_two_perfect_fits_it_is_nothing() -> None:
    assert excess(3.0, 2.0, 10) == pytest.approx(0.5)
    assert excess(1e-28, 1e-30, 10) == pytest.approx(0.0, abs=1e-12)
