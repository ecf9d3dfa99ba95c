import pytest
import torch

from workers.surgery import quantize_rtn
from workers.surgery.quantize_grid import Quantized, bits_per_weight, fit, scale_dtype


def drawn(outputs=16, inputs=64, seed=0):
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed)) * 0.05


def test_four_weights_by_hand():
    grid = fit(torch.tensor([[-1.0, 0.25, 1.25, 0.5]]), bits=2, group_size=None, symmetric=False, dtype=torch.bfloat16)
    assert (grid.scale_OG.item(), grid.zero_OG.item() if grid.zero_OG is not None else None) == (0.75, 1.0)
    assert grid.encode(torch.tensor([[-1.0, 0.25, 1.25, 0.5]])).tolist() == [[0.0, 1.0, 3.0, 2.0]]
    assert grid.nearest(torch.tensor([[-1.0, 0.25, 1.25, 0.5]])).tolist() == [[-0.75, 0.0, 1.5, 0.75]]


def test_a_group_of_one_sign_spans_to_zero():
    for sign, zero in ((1, 0), (-1, 3)):
        weight = sign * torch.tensor([[3.0, 4.0, 5.0, 6.0]])
        grid = fit(weight, bits=2, group_size=4, symmetric=False, dtype=torch.bfloat16)
        assert (grid.scale_OG.item(), grid.zero_OG.item()) == (2.0, zero)  # from 0 to 6 in three steps


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("bits", "group_size"), [(2, 8), (3, 32), (4, 8), (4, None), (8, 32), (8, None)])
def test_it_is_round_to_nearest_but_for_the_scales_storage(bits, group_size, symmetric):
    """quantize_rtn keeps scales in float32; with weights of which they are exact in bf16 anyway both agree."""
    top = 2 ** (bits - 1) - 1 if symmetric else 2**bits - 1
    codes = torch.randint(-top if symmetric else 0, top + 1, (16, 64), generator=torch.Generator().manual_seed(1))
    codes[:, ::8] = top
    codes[:, 1::8] = -top if symmetric else 0
    weight = codes * 0.125 + torch.rand(16, 64, generator=torch.Generator().manual_seed(2)) * 0.01 * (codes.abs() < top)
    weight[codes == 0] = 0 if not symmetric else weight[codes == 0]
    grid = fit(weight, bits=bits, group_size=group_size, symmetric=symmetric, dtype=torch.bfloat16)
    expected = quantize_rtn.quantize(weight, bits=bits, group_size=group_size, symmetric=symmetric)
    assert torch.equal(grid.nearest(weight), expected)


@pytest.mark.parametrize("symmetric", [True, False])
def test_scales_are_what_sixteen_bits_hold_and_codes_what_the_width_holds(symmetric):
    weight = drawn()
    for dtype in (torch.bfloat16, torch.float16):
        grid = fit(weight, bits=3, group_size=16, symmetric=symmetric, dtype=dtype)
        assert torch.equal(grid.scale_OG.to(dtype).to(torch.float32), grid.scale_OG)
        codes = grid.encode(weight * 3)  # beyond the grid
        assert (int(codes.min()), int(codes.max())) == (grid.least, grid.most)
        assert grid.most - grid.least == 7
        assert torch.equal(Quantized(grid, codes.to(torch.int16)).weight(), grid.decode(codes))


def test_what_a_weight_takes():
    assert bits_per_weight(576, bits=4, group_size=64, symmetric=False) == 4 + 20 / 64
    assert bits_per_weight(576, bits=4, group_size=64, symmetric=True) == 4.25
    assert bits_per_weight(512, bits=8, group_size=None, symmetric=True) == 8 + 16 / 512
    assert (scale_dtype("F16"), scale_dtype("F32")) == (torch.float16, torch.bfloat16)
