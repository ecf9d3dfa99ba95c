"""Sums of outer products against numpy in float64."""

import numpy as np
import pytest
import torch

from workers.surgery.blockwise.gram import add_upper, mirror


@pytest.mark.parametrize("inputs", [1, 7, 192, 193, 500])
def test_blocks_above_the_diagonal_and_their_mirror_are_the_whole_product(inputs):
    draws = torch.Generator().manual_seed(inputs)
    batches = [torch.randn(tokens, inputs, generator=draws) for tokens in (3, 40)]
    weights = [torch.rand(len(batch), 1, generator=draws) for batch in batches]
    sum_II = torch.zeros(inputs, inputs)
    for batch_TI, weight_T1 in zip(batches, weights, strict=True):
        add_upper(sum_II, batch_TI * weight_T1, batch_TI)
    whole_TI = torch.cat(batches).double().numpy()
    expected = whole_TI.T @ (whole_TI * torch.cat(weights).double().numpy())
    found_II = mirror(sum_II)
    np.testing.assert_allclose(found_II.numpy(), expected, atol=1e-4)
    assert torch.equal(found_II, found_II.T)
