from itertools import combinations

import pytest
import torch

from app.contracts.errors import ErrorCode, HemostatError
from workers.mitigation.gradient_pruning.sweep import inverse_cholesky, sweep
from workers.surgery.prune_masks import Quota
from workers.surgery.prune_sparsegpt import inverse_factor, sparsify


def moment(inputs, seed=0):
    x = torch.randn(4 * inputs, inputs, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = x @ torch.randn(inputs, inputs, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    return x.T @ x / len(x)


def weight(outputs, inputs):
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


def test_the_factor_is_that_of_the_damped_inverse():
    h = moment(6)
    factor = inverse_cholesky(h, 0.01)
    expected = torch.linalg.inv(h + 0.01 * h.diagonal().mean() * torch.eye(6, dtype=h.dtype))
    torch.testing.assert_close(factor.T @ factor, expected, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(factor, factor.triu())


def test_one_zero_is_the_one_that_costs_least_and_the_rest_is_obs():
    """The first column of a 4x4 case: every input is still free, so OBS has its closed form there."""
    h, w = moment(4), weight(1, 4)
    inverse = torch.linalg.inv(h)
    gain = torch.full((1, 4), 1e6, dtype=torch.float64)
    gain[0, 0] = 1e-6  # so that the first goes
    found = sweep(w, inverse_cholesky(h, 1e-12), gain, count=1)
    expected = w - w[0, 0] / inverse[0, 0] * inverse[0]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert float(found[0, 0]) == 0
    # and it is the best among all weights with that zero
    solved = torch.linalg.solve(h[1:, 1:], (h @ w[0])[1:])
    torch.testing.assert_close(found[0, 1:], solved, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("pattern", [None, (2, 4)])
def test_with_the_gain_of_equal_outputs_it_is_sparsegpt(pattern):
    w, h = weight(12, 128).float(), moment(128).float()
    quota = Quota(12 * 64, by_row=False, share=0.5, pattern=pattern)
    expected = sparsify(w, inverse_factor(h, 0.01), quota)
    found = sweep(w, inverse_cholesky(h, 0.01), torch.ones_like(w), count=12 * 64, pattern=pattern)
    assert float(((found == 0) == (expected == 0)).float().mean()) > 0.99
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(("outputs", "inputs", "count"), [(7, 300, 1000), (3, 130, 1), (5, 128, 640 - 1), (4, 64, 0)])
def test_the_number_of_zeros_is_exact(outputs, inputs, count):
    found = sweep(
        weight(outputs, inputs), inverse_cholesky(moment(inputs), 0.01), torch.rand(outputs, inputs) + 0.1, count=count
    )
    assert int((found == 0).sum()) == count


def test_on_uncorrelated_inputs_it_is_the_best_mask_there_is():
    """Each weight's price is its own then: against every choice of three of eight."""
    w, gain = weight(2, 4), torch.tensor([[1.0, 2, 3, 4], [4, 3, 2, 1]], dtype=torch.float64)
    found = sweep(w, inverse_cholesky(torch.eye(4, dtype=w.dtype), 1e-12), gain, count=3)
    cost = (w.square() * gain).flatten()
    best = min(combinations(range(8), 3), key=lambda chosen: float(cost[list(chosen)].sum()))
    assert tuple((found.flatten() == 0).nonzero().flatten().tolist()) == best


def test_inputs_that_are_always_zero_and_singular_moments_are_held():
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    x[:, 3] = 0
    factor = inverse_cholesky(x.T @ x / 5, 0.01)
    found = sweep(weight(4, 32).float(), factor, torch.ones(4, 32), count=64)
    assert bool(torch.isfinite(found).all())
    assert int((found == 0).sum()) == 64


def test_a_moment_that_is_not_finite_is_refused():
    h = moment(4)
    h[1, 2] = float("inf")
    with pytest.raises(HemostatError) as caught:
        inverse_cholesky(h, 0.01)
    assert caught.value.code == ErrorCode.ACTIVATIONS_NOT_FINITE
