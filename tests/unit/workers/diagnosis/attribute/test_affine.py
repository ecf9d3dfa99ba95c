"""The map between two widths is the weighted ridge regression of its definition, and its ridge the best of the grid."""

import numpy as np
import pytest
import torch

from workers.diagnosis.attribute.affine import GRID, fit


def by_hand(x_TS: np.ndarray, y_TU: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """(λ over the mean eigenvalue, weight, offset), by the hat matrix of every λ of the grid."""
    weight_T = 1 / np.square(y_TU).sum(1)
    root_T1 = np.sqrt(weight_T)[:, None]
    middle_S, middle_U = (weight_T @ one / weight_T.sum() for one in (x_TS, y_TU))
    a_TS, b_TU = (x_TS - middle_S) * root_T1, (y_TU - middle_U) * root_T1
    tokens, size = x_TS.shape
    mean = np.square(a_TS).sum() / size
    found = []
    for ridge in GRID:
        solved_ST = np.linalg.solve(a_TS.T @ a_TS + ridge * mean * np.eye(size), a_TS.T)
        left = np.square(b_TU - a_TS @ solved_ST @ b_TU).sum()
        free = tokens - 1 - np.trace(a_TS @ solved_ST)
        found.append((left / free**2, ridge, solved_ST @ b_TU))
    _, ridge, weight_SU = min(found, key=lambda one: one[0])
    return ridge, weight_SU, middle_U - middle_S @ weight_SU


@pytest.mark.parametrize(("tokens", "noise"), [(200, 0.3), (60, 1.0), (18, 0.3)], ids=["many", "noisy", "too few"])
def test_the_map_is_that_of_the_definition(tokens: int, noise: float) -> None:
    rng = np.random.default_rng(3)
    x_TS = rng.normal(size=(tokens, 24)) * np.geomspace(3, 0.05, 24) + 2
    y_TU = x_TS @ rng.normal(size=(24, 10)) + noise * rng.normal(size=(tokens, 10)) + 5
    _, weight_SU, offset_U = by_hand(x_TS, y_TU)
    map_ = fit([(torch.from_numpy(x_TS[part]), torch.from_numpy(y_TU[part])) for part in (slice(7), slice(7, None))])
    np.testing.assert_allclose(map_.weight_SU.numpy(), weight_SU, rtol=1e-7, atol=1e-9)
    other_TS = rng.normal(size=(5, 24))
    np.testing.assert_allclose(
        map_(torch.from_numpy(other_TS)).numpy(), other_TS @ weight_SU + offset_U, rtol=1e-7, atol=1e-8
    )


def test_noise_is_answered_by_more_ridge() -> None:
    rng = np.random.default_rng(0)
    x_TS, weight_SU = rng.normal(size=(60, 40)), rng.normal(size=(40, 5))
    ridges = []
    for noise in (0.0, 1.0, 30.0):
        y_TU = x_TS @ weight_SU + noise * rng.normal(size=(60, 5))
        ridge, expected_SU, _ = by_hand(x_TS, y_TU)
        ridges.append(ridge)
        found_SU = fit([(torch.from_numpy(x_TS), torch.from_numpy(y_TU))]).weight_SU.numpy()
        np.testing.assert_allclose(found_SU, expected_SU, rtol=1e-6, atol=1e-9)
    assert ridges[0] == GRID[0]
    assert ridges[0] < ridges[1] < ridges[2]


def test_cancelling_is_seen_before_the_eigenvalues() -> None:
    seen: list[str] = []

    def check() -> None:
        seen.append("asked")

    def eigh(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append("eigenvalues")
        values, vectors = kept(matrix)
        return values, vectors

    kept = torch.linalg.eigh
    pairs = [(torch.randn(9, 4), torch.randn(9, 3)) for _ in range(2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.linalg, "eigh", eigh)
        fit(pairs, check_cancelled=check)
    assert seen == ["asked", "asked", "asked", "eigenvalues"]


def test_a_token_of_huge_states_does_not_decide() -> None:
    """An attention sink counts as any other token: by what share of its state the map is off."""
    rng = np.random.default_rng(1)
    x_TS, weight_SU = rng.normal(size=(300, 8)), rng.normal(size=(8, 6))
    y_TU = x_TS @ weight_SU
    y_TU[0] = 1000 * rng.normal(size=6)  # and of none of the others' map
    map_ = fit([(torch.from_numpy(x_TS), torch.from_numpy(y_TU))])
    off_T = np.linalg.norm(map_(torch.from_numpy(x_TS[1:])).numpy() - y_TU[1:], axis=1)
    assert (off_T / np.linalg.norm(y_TU[1:], axis=1)).max() < 0.01


def test_what_no_token_has_is_not_carried() -> None:
    """Directions of the source that are nothing but rounding are mapped to nothing."""
    generator = torch.Generator().manual_seed(2)
    turn_DW = torch.linalg.qr(torch.randn(48, 48, generator=generator))[0]
    y_TU = torch.randn(200, 32, generator=generator)
    map_ = fit([(y_TU @ turn_DW[:32], y_TU)])
    outside_TS = torch.randn(20, 16, generator=generator) @ turn_DW[32:]
    base_TU = map_(torch.zeros(20, 48))
    assert float((map_(outside_TS) - base_TU).norm() / outside_TS.norm()) < 0.02
    inside_TU = torch.randn(20, 32, generator=generator)
    torch.testing.assert_close(map_(inside_TU @ turn_DW[:32]), inside_TU, rtol=0, atol=1e-4)


def test_a_map_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="there are none"):
        fit(iter(()))
