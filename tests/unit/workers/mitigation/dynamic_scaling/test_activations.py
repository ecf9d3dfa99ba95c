"""Inputs of layers on a grid of each token's own: values by hand, gradients that pass, and an end."""

import pytest
import torch
from torch import nn

from workers.mitigation.dynamic_scaling.activations import round_tokens, rounding_inputs


@pytest.mark.parametrize("bits", [4, 8])
def test_every_token_has_a_symmetric_grid_of_its_own(bits):
    x_NLI = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0))
    x_NLI[0, 1] *= 1000
    x_NLI[1, 2] = 0
    top = 2 ** (bits - 1) - 1
    for row, found in zip(x_NLI.flatten(0, 1).double(), round_tokens(x_NLI, bits).flatten(0, 1), strict=True):
        scale = float(row.abs().max()) / top or 1.0
        torch.testing.assert_close(found.double(), (row / scale).round() * scale, rtol=1e-5, atol=1e-6 * scale)


def test_gradients_pass_the_rounding_as_if_it_were_not_there():
    x_TI = torch.randn(3, 6, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
    given_TI = torch.randn(3, 6, generator=torch.Generator().manual_seed(2))
    round_tokens(x_TI, 4).backward(given_TI)
    assert torch.equal(x_TI.grad, given_TI)


def test_layers_round_what_they_are_given_until_it_is_closed():
    rounded, plain = nn.Linear(6, 4).requires_grad_(False), nn.Linear(6, 4).requires_grad_(False)
    x_TI = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    before, other = rounded(x_TI), plain(x_TI)
    with rounding_inputs([rounded], 4):
        assert torch.equal(rounded(x_TI), nn.functional.linear(round_tokens(x_TI, 4), rounded.weight, rounded.bias))
        assert not torch.equal(rounded(x_TI), before)
        assert torch.equal(plain(x_TI), other)
    assert torch.equal(rounded(x_TI), before)
    with rounding_inputs([rounded], None):
        assert torch.equal(rounded(x_TI), before)
