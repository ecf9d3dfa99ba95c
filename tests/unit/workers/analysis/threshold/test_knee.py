"""The grid of knees, and the search over it."""

import numpy as np
import pytest

from workers.analysis.threshold.curve import Curve
from workers.analysis.threshold.knee import KneeSearch, knee_grid


def test_the_grid_holds_its_ends_and_every_point_between_them() -> None:
    s_N = np.array([0.1, 0.2, 0.35, 0.8])
    grid_G = knee_grid(s_N, 0.15, 0.5)
    assert grid_G[0] == 0.15
    assert grid_G[-1] == 0.5
    assert {0.2, 0.35} <= set(grid_G)
    assert (np.diff(grid_G) > 0).all()


def test_the_grid_of_many_points_stays_small() -> None:
    assert len(knee_grid(np.linspace(0.001, 1, 1000), 0.0, 1.0)) < 220


def test_a_range_of_one_knee_is_one_knee() -> None:
    assert knee_grid(np.linspace(0.1, 1, 10), 0.4, 0.4).tolist() == [0.4]


def test_the_better_of_two_minima_in_one_profile_is_found() -> None:
    """Two breaks, and one knee to place: the profile has a minimum near each; a walk from the middle finds one."""
    s_N = np.linspace(0.05, 1, 39)
    log_N = 2 * np.maximum(s_N - 0.2, 0) - 4 * np.maximum(s_N - 0.7, 0)

    def basis(at_N: np.ndarray, knee_G: np.ndarray) -> np.ndarray:
        beyond_GN = np.maximum(at_N - knee_G[:, None], 0)
        return np.stack([np.ones_like(beyond_GN), np.broadcast_to(at_N, beyond_GN.shape), beyond_GN], axis=-1)

    search = KneeSearch(basis, np.full(3, -np.inf), np.full(3, np.inf), 0.05, 1.0)
    fit = search.fit(Curve(s_N, log_N))
    knee_G = np.linspace(0.05, 1, 5001)
    _, sse_G = search.designs(s_N, knee_G).solve(log_N)
    assert fit.sse <= sse_G.min() + 1e-12
    assert fit.knee == pytest.approx(knee_G[sse_G.argmin()], abs=5e-4)
