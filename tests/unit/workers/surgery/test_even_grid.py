"""Grids against a plain loop in float64, and against a case made by hand."""

import math

import pytest
import torch

from workers.surgery.even_grid import codes, codes_on, fixed_grid, on_grid


def by_hand(values, bits, *, symmetric):
    """One grid for the values, in Python's float64; halves to even as `round` has it."""
    if symmetric:
        top = 2 ** (bits - 1) - 1
        scale = max(abs(v) for v in values) / top or 1.0
        return [max(-top, min(top, round(v / scale))) * scale for v in values]
    low, high, top = min(*values, 0.0), max(*values, 0.0), 2**bits - 1
    scale = (high - low) / top or 1.0
    zero = round(-low / scale)
    return [(max(0, min(top, round(v / scale) + zero)) - zero) * scale for v in values]


def test_a_case_made_by_hand():
    x = torch.tensor([[-2.0, 0.0, 3.0, 7.0], [1.0, 2.0, 4.0, 15.0], [0.0, 0.0, 0.0, 0.0]])
    codes_TI, scale_T1 = codes(x, bits=4, symmetric=True)
    assert scale_T1.flatten().tolist() == pytest.approx([1.0, 15 / 7, 1.0])
    assert codes_TI.tolist() == [[-2, 0, 3, 7], [0, 1, 2, 7], [0, 0, 0, 0]]
    codes_TI, scale_T1 = codes(x, bits=4, symmetric=False)
    assert scale_T1.flatten().tolist() == pytest.approx([0.6, 1.0, 1.0])
    assert codes_TI.tolist() == [[-3, 0, 5, 12], [1, 2, 4, 15], [0, 0, 0, 0]]


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_codes_are_whole_and_exact_in_the_engines_dtype(dtype, symmetric):
    x_TI = torch.randn(64, 300, generator=torch.Generator().manual_seed(0)) - 0.5
    codes_TI, _ = codes(x_TI, bits=8, symmetric=symmetric)
    assert torch.equal(codes_TI, codes_TI.round())
    assert torch.equal((codes_TI / 256).to(dtype).to(torch.float32) * 256, codes_TI)
    assert len(set(codes_TI.flatten().tolist())) > 200


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_fixed_grid_holds_its_range_and_cuts_what_lies_beyond(symmetric):
    grid = fixed_grid(-1.0, 3.0, bits=8, symmetric=symmetric)
    assert list(grid) == pytest.approx([3 / 127, 0] if symmetric else [4 / 255, 64])
    x = torch.tensor([-100.0, -1.0, 0.0, 0.5, 3.0, 100.0])
    back = codes_on(x, grid, bits=8, symmetric=symmetric) * grid[0]
    least = -3.0 if symmetric else -64 * 4 / 255
    assert back[2] == 0
    assert back.tolist() == pytest.approx([least, -1.0, 0.0, 0.5, 3.0, back[5].item()], abs=grid[0] / 2)
    assert abs(back[5].item() - 3.0) <= grid[0] / 2


@pytest.mark.parametrize("symmetric", [True, False])
def test_what_is_not_finite_stays_so_in_its_row_alone(symmetric):
    x_TI = torch.ones(3, 4)
    x_TI[0, 1], x_TI[2, 0] = math.nan, math.inf
    made_TI = on_grid(x_TI, bits=8, symmetric=symmetric)
    assert [bool(row.isfinite().all()) for row in made_TI] == [False, True, False]
