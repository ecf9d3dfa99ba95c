import numpy as np
import pytest
import torch

from workers.mitigation.repair.closed_form import Metric
from workers.mitigation.repair.rounds import rounds


def draw(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def coarse(weight_OI):
    """A wound: whole steps of a quarter of each row's largest value."""
    step_O1 = weight_OI.abs().amax(1, keepdim=True).clamp_min(1e-9) / 4
    return (weight_OI / step_O1).round() * step_O1


def alike(outputs, inputs):
    """Every input and output counts the same."""
    return Metric(torch.eye(inputs, dtype=torch.float64), torch.ones(outputs, dtype=torch.float64))


def alternated(weight, taken, rank, count):
    """What is left after each round, by numpy's own decomposition."""
    left = []
    for _ in range(count):
        base = coarse(torch.from_numpy((weight - taken).astype(np.float32))).numpy().astype(np.float64)
        up, values, down = np.linalg.svd(weight - base, full_matrices=False)
        taken = (up[:, :rank] * values[:rank]) @ down[:rank]
        left.append(float((values[rank:] ** 2).sum()) / 2)
    return left


def best_of(weight, rank):
    up, values, down = np.linalg.svd(weight, full_matrices=False)
    return (up[:, :rank] * values[:rank]) @ down[:rank]


@pytest.mark.parametrize("count", [1, 3, 5])
def test_the_round_that_leaves_the_least_is_kept(count):
    rank = 4
    whole_OI = draw(24, 6, seed=21) @ draw(6, 32, seed=22) + draw(24, 32, seed=23)
    error_OI = whole_OI - coarse(whole_OI)
    weight, error = whole_OI.numpy().astype(np.float64), error_OI.numpy().astype(np.float64)
    left = alternated(weight, best_of(error, rank), rank, count)
    assert count < 5 or min(left) < 0.98 * left[-1]  # of five it is not the last
    found = rounds(whole_OI, error_OI, alike(24, 32), coarse, rank=rank, count=count)
    assert found.left == pytest.approx(min(left), rel=1e-3)
    torch.testing.assert_close(found.base_OI + found.error_OI, whole_OI)


def test_the_wound_that_was_there_is_kept_where_every_round_is_worse():
    whole_OI = draw(8, 8, seed=1)
    error_OI = 0.01 * draw(8, 8, seed=2)
    found = rounds(whole_OI, error_OI, alike(8, 8), lambda weight_OI: weight_OI + draw(8, 8, seed=3), rank=2, count=3)
    assert found.base_OI is None
    assert found.error_OI is error_OI
    values = np.linalg.svd(error_OI.numpy().astype(np.float64), compute_uv=False)
    assert found.left == pytest.approx(float((values[2:] ** 2).sum()) / 2, rel=1e-4)
