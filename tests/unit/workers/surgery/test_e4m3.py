"""8-bit floats against the definition of their format in float64, and against compressed-tensors' own rounding."""

import math

import numpy as np
import pytest
import torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import fake_quantize
from compressed_tensors.quantization.utils import compute_dynamic_scales_and_zp

from tests.support import e4m3 as by_hand
from workers.surgery.e4m3 import codes, codes_on, nearest


def test_every_number_of_the_format_stays_and_halves_go_to_the_even_pattern():
    grid = by_hand.numbers()
    assert (len(grid), grid[1], grid[-1]) == (127, 2.0**-9, 448)
    halves = ((grid[1:] + grid[:-1]) / 2).astype(np.float32)
    beside = [np.nextafter(halves, np.float32(end)) for end in (0, 448)]
    given = np.concatenate([grid.astype(np.float32), halves, *beside])
    given = np.concatenate([given, -given])
    assert nearest(torch.from_numpy(given)).double().tolist() == by_hand.nearest(given.astype(np.float64)).tolist()
    even = [float(grid[place + place % 2]) for place in range(len(halves))]
    assert nearest(torch.from_numpy(halves)).tolist() == even


def test_what_lies_beyond_is_cut_and_not_made_nan():
    """As a plain cast makes it, from 464 on."""
    assert nearest(torch.tensor([449.0, 500.0, -1e9, math.inf])).tolist() == [448, 448, -448, 448]
    assert nearest(torch.tensor([math.nan])).isnan().all()


def test_each_row_has_a_scale_of_its_own():
    x_TI = torch.randn(40, 240, generator=torch.Generator().manual_seed(0)) * torch.logspace(-6, 6, 40)[:, None]
    x_TI[3] = 0
    codes_TI, scale_T1 = codes(x_TI)
    most_T = x_TI.abs().amax(1)
    assert torch.allclose(scale_T1[:, 0] * 448, torch.where(most_T == 0, 448.0, most_T), rtol=1e-6)
    assert set(codes_TI.abs().flatten().tolist()) <= set(by_hand.numbers().tolist())
    made, expected = (codes_TI * scale_T1).double().numpy(), by_hand.scaled(x_TI.double().numpy())
    assert np.isclose(made, expected, rtol=1e-5, atol=0).mean() > 0.9995  # else float32 put it on the other side
    own = x_TI.double().numpy()
    assert (np.abs(np.abs(made - own) - np.abs(expected - own)) <= 1e-6 * np.abs(own)).all()  # as near there, too


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_what_compressed_tensors_makes_of_a_token(dtype):
    x_NTI = torch.randn(2, 30, 200, generator=torch.Generator().manual_seed(2)).to(dtype).float()
    args = QuantizationArgs(num_bits=8, type="float", symmetric=True, strategy="token", dynamic=True)
    scale_NT1, zero_NT1 = compute_dynamic_scales_and_zp(x_NTI, args, torch.nn.Module())
    codes_NTI, own_NT1 = codes(x_NTI)
    assert torch.equal(own_NT1, scale_NT1)
    assert torch.equal(codes_NTI * own_NT1, fake_quantize(x_NTI, scale_NT1, zero_NT1, args))


def test_a_fixed_scale_cuts_what_lies_beyond():
    x = np.array([-100.0, -1.5, 0.0, 0.3, 1.0, 447.0, 1000.0])
    made = codes_on(torch.from_numpy(x).float(), 0.25) * 0.25
    assert made.double().tolist() == by_hand.scaled(x, 0.25).tolist()
    # −400 is half way between −416 and −384, whose pattern is even
    assert (made[0].item(), made[5].item(), made[6].item()) == (-96, 112, 112)


def test_what_is_not_finite_stays_so_in_its_row_alone():
    x_TI = torch.ones(3, 4)
    x_TI[0, 1], x_TI[2, 0] = math.nan, math.inf
    codes_TI, scale_T1 = codes(x_TI)
    assert [bool(row.isfinite().all()) for row in codes_TI * scale_T1] == [False, True, False]
