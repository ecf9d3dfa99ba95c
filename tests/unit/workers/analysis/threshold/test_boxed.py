"""The bounded solutions are those of scipy's lsq_linear, for every design of a stack."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from workers.analysis.threshold.boxed import BoxedDesigns

INF = np.inf


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), kind=st.sampled_from(["open", "lower", "both", "mixed", "fixed"]))
def test_each_problem_is_solved_as_lsq_linear_solves_it(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    design_GNK = rng.standard_normal((3, 9, 4))
    y_BN = rng.standard_normal((2, 9))
    lower, upper = {
        "open": ([-INF] * 4, [INF] * 4),
        "lower": ([0.0] * 4, [INF] * 4),
        "both": ([-0.1] * 4, [0.2] * 4),
        "mixed": ([-INF, 0.3, -INF, 0.0], [-0.1, 0.5, INF, INF]),
        "fixed": ([-INF, 0.3, 0.0, 0.0], [INF, 0.3, INF, 0.0]),
    }[kind]
    lower_K, upper_K = np.array(lower), np.array(upper)
    designs = BoxedDesigns(design_GNK, lower_K, upper_K)
    sse_GB = designs.sse(y_BN)
    free = lower_K < upper_K
    for g in range(3):
        for b in range(2):
            rest_N = y_BN[b] - design_GNK[g][:, ~free] @ lower_K[~free]
            oracle = optimize.lsq_linear(
                design_GNK[g][:, free], rest_N, (lower_K[free], upper_K[free]), method="bvls", tol=1e-13
            )
            assert sse_GB[g, b] == pytest.approx(2 * oracle.cost, rel=1e-9, abs=1e-12)
            coefficient_GK, solved_G = designs.solve(y_BN[b])
            assert solved_G[g] == pytest.approx(2 * oracle.cost, rel=1e-9, abs=1e-12)
            assert coefficient_GK[g][free] == pytest.approx(oracle.x, rel=1e-6, abs=1e-6)
            assert (coefficient_GK[g] >= lower_K).all()
            assert (coefficient_GK[g] <= upper_K).all()
    design_B, coefficient_BK, best_B = designs.best(y_BN)
    assert design_B.tolist() == sse_GB.argmin(axis=0).tolist()
    assert best_B == pytest.approx(sse_GB.min(axis=0))
    for b in range(2):
        residual_N = y_BN[b] - design_GNK[design_B[b]] @ coefficient_BK[b]
        assert (residual_N**2).sum() == pytest.approx(best_B[b], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("lower", "upper"), [([-INF] * 3, [INF] * 3), ([0.5] * 3, [INF] * 3), ([-1.0] * 3, [0.2] * 3)])
def test_dependent_and_empty_columns_still_give_the_least_sum(lower: list[float], upper: list[float]) -> None:
    rng = np.random.default_rng(0)
    column_N = rng.standard_normal(7)
    design_GNK = np.stack(
        [
            np.column_stack([np.ones(7), column_N, 2 * column_N]),
            np.column_stack([np.ones(7), column_N, np.zeros(7)]),
            np.column_stack([np.ones(7), np.full(7, 3.0), column_N * 1e-9]),
        ]
    )
    y_N = rng.standard_normal(7)
    _, sse_G = BoxedDesigns(design_GNK, np.array(lower), np.array(upper)).solve(y_N)
    for g in range(3):
        oracle = optimize.lsq_linear(design_GNK[g], y_N, (np.array(lower), np.array(upper)), method="trf", tol=1e-14)
        assert sse_G[g] <= 2 * oracle.cost * (1 + 1e-6)
        assert sse_G[g] == pytest.approx(2 * oracle.cost, rel=1e-3)


def test_a_lower_bound_above_its_upper_bound_is_refused() -> None:
    with pytest.raises(ValueError, match="lower bound"):
        BoxedDesigns(np.ones((1, 3, 1)), np.array([1.0]), np.array([0.0]))
