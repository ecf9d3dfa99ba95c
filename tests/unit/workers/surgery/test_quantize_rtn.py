"""Oracles: cases by hand, torch's own fake quantization, and the packing library's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.recipes.quantize import QuantizeRtn
from workers.surgery.quantize_rtn import quantize
from workers.surgery.steps import RtnRunner


def random(outputs, inputs, seed=0, dtype=torch.float32):
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed)).to(dtype)


# ---- by hand


def test_asymmetric_by_hand():
    # Two bits: three steps. Row 0: 0 … 3, step 1, zero 0. Row 1: -1 … 2, step 1, zero 1. Row 2: negative alone, so 0 is
    # the largest: step 1, zero 3. Row 3: -0.5 … 1, step 0.5, zero 1.
    weight = torch.tensor(
        [[0.0, 1.2, 1.8, 3.0], [-1.0, 0.4, 1.6, 2.0], [-3.0, -1.2, -2.7, -0.6], [-0.5, 0.2, 0.8, 1.0]]
    )
    expected = torch.tensor(
        [[0.0, 1.0, 2.0, 3.0], [-1.0, 0.0, 2.0, 2.0], [-3.0, -1.0, -3.0, -1.0], [-0.5, 0.0, 1.0, 1.0]]
    )
    assert torch.equal(quantize(weight, bits=2, group_size=None, symmetric=False), expected)


def test_symmetric_by_hand():
    # Three bits: absmax / 3. Rows of absmax 3, 6, 0.75, 0.
    weight = torch.tensor(
        [[3.0, -1.4, 0.6, -3.0], [-6.0, 2.9, 3.1, 0.9], [0.75, 0.1, -0.4, 0.2], [0.0, 0.0, -0.0, 0.0]]
    )
    expected = torch.tensor(
        [[3.0, -1.0, 1.0, -3.0], [-6.0, 2.0, 4.0, 0.0], [0.75, 0.0, -0.5, 0.25], [0.0, 0.0, 0.0, 0.0]]
    )
    assert torch.equal(quantize(weight, bits=3, group_size=None, symmetric=True), expected)


def test_ten_skewed_values_are_rounded_as_the_paper_s_figure_of_both_quantizers_has_it():
    """Four bits, by hand. Symmetric: s = |α| / (2³ − 1) = 130/7, x̂ = s · round(x/s), codes −1 0 1 1 2 3 4 5 6 7.
    Asymmetric: s = (α − β) / (2⁴ − 1) = 10, z = −2³ − β/s = −6, x̂ = s · (q − z) with q = round(x/s + z). The ten values
    behind the figure's mean errors, 4.06 and 1.96, are not known; of these the means are 41/14 and 2.3."""
    x = torch.tensor([[-20.0, 3, 14, 27, 36, 52, 76, 88, 111, 130]])
    symmetric = quantize(x, bits=4, group_size=None, symmetric=True)
    codes = torch.tensor([[-1.0, 0, 1, 1, 2, 3, 4, 5, 6, 7]])
    torch.testing.assert_close(symmetric, codes * 130 / 7)
    asymmetric = quantize(x, bits=4, group_size=None, symmetric=False)
    assert asymmetric.tolist() == [[-20.0, 0, 10, 30, 40, 50, 80, 90, 110, 130]]
    errors = [float((found - x).abs().mean()) for found in (symmetric, asymmetric)]
    assert errors == pytest.approx([41 / 14, 2.3])


# ---- against libraries


@pytest.mark.parametrize("bits", range(2, 9))
def test_both_agree_with_torch(bits):
    weight = random(24, 96, seed=bits)
    for group in (16, 32, 96):
        rows = weight.reshape(-1, group)
        low, high = rows.amin(1).clamp(max=0), rows.amax(1).clamp(min=0)
        top = 2**bits - 1
        scale = (high - low) / top
        zero = (-low / scale).round().to(torch.int32)
        expected = torch.fake_quantize_per_channel_affine(rows, scale, zero, 0, 0, top)
        found = quantize(weight, bits=bits, group_size=group, symmetric=False)
        torch.testing.assert_close(found, expected.reshape(24, 96), rtol=1e-5, atol=1e-6)
    top = 2 ** (bits - 1) - 1
    scale = weight.abs().amax(1) / top
    expected = torch.fake_quantize_per_channel_affine(weight, scale, torch.zeros(24, dtype=torch.int32), 0, -top, top)
    found = quantize(weight, bits=bits, group_size=None, symmetric=True)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


# ---- properties

MATRICES = st.tuples(st.integers(1, 5), st.integers(1, 4), st.sampled_from([1, 2, 8]), st.integers(0, 10**6))
BITS = st.integers(2, 8)


@settings(deadline=None, max_examples=60)
@given(MATRICES, BITS, st.booleans(), st.floats(-20, 20), st.floats(-3, 3))
def test_no_weight_moves_by_more_than_half_a_step(sizes, bits, symmetric, log_scale, offset):
    outputs, groups, group, seed = sizes
    weight = (random(outputs, groups * group, seed) + offset) * 2.0**log_scale
    found = quantize(weight, bits=bits, group_size=group, symmetric=symmetric)
    grouped = weight.reshape(outputs, groups, group).double()
    if symmetric:
        step_size = grouped.abs().amax(-1) / (2 ** (bits - 1) - 1)
    else:
        step_size = (grouped.amax(-1).clamp(min=0) - grouped.amin(-1).clamp(max=0)) / (2**bits - 1)
    moved = (found.reshape_as(grouped) - grouped).abs()
    assert bool((moved <= step_size.unsqueeze(-1) * (0.5 + 1e-4)).all())
    codes = [len(np.unique(row)) for row in found.reshape(-1, group).numpy()]
    assert max(codes) <= 2**bits


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_dtype_stays_and_the_arithmetic_is_float32(dtype):
    weight = random(8, 64, dtype=dtype)
    found = quantize(weight, bits=4, group_size=32, symmetric=False)
    assert found.dtype == dtype
    assert torch.equal(found, quantize(weight.float(), bits=4, group_size=32, symmetric=False).to(dtype))


def test_scales_and_zero_points_are_counted():
    for fields, expected in (
        ({"bits": 4}, 4 + 20 / 64),
        ({"bits": 4, "symmetric": True}, 4 + 16 / 64),
        ({"bits": 8, "group_size": 32}, 8 + 24 / 32),
        ({"bits": 3, "group_size": None}, 3 + 19 / 576),
        ({"bits": 8, "group_size": None, "symmetric": True}, 8 + 16 / 576),
    ):
        assert RtnRunner(QuantizeRtn(type="quantize.rtn", **fields)).bits_per_weight(576) == expected
