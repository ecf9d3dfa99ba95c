"""The oracle of the arithmetic is llm-compressor's own GPTQ, given the same Hessian and grid."""

import pytest
import torch

from app.contracts.errors import ErrorCode, HemostatError
from tests.support.quantizing import divergence, operate, tensors, text
from workers.surgery.quantize_gptq import factor, quantize
from workers.surgery.quantize_grid import fit


def problem(outputs=48, inputs=128, seed=0):
    """(weight, second moment of correlated inputs)."""
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, inputs, generator=draw) * 0.05
    x = torch.randn(2000, inputs, generator=draw) @ torch.randn(inputs, inputs, generator=draw) / inputs**0.5
    return weight, x.T @ x / len(x)


def loss(weight, made, hessian):
    moved = (made - weight).double()
    return float(((moved @ hessian.double()) * moved).sum())


@pytest.mark.parametrize(
    ("bits", "group_size", "symmetric", "act_order"),
    [(4, 32, True, False), (4, 32, False, False), (3, None, False, False), (4, 8, False, False), (3, 32, False, True)],
)
def test_llm_compressor_does_the_same(bits, group_size, symmetric, act_order):
    from compressed_tensors.quantization import QuantizationArgs
    from llmcompressor.modifiers.gptq.gptq_quantize import quantize_weight

    weight, hessian = problem()
    ours = quantize(
        weight,
        factor(hessian, damping=0.01, act_order=act_order),
        bits=bits,
        group_size=group_size,
        symmetric=symmetric,
    )
    arguments = QuantizationArgs(
        num_bits=bits,
        symmetric=symmetric,
        strategy="channel" if group_size is None else "group",
        group_size=group_size,
        actorder="weight" if act_order else None,
    )
    scale, zero = ours.grid.scale_OG, ours.grid.zero_OG
    shifted = torch.zeros_like(scale) if zero is None else zero - 2 ** (bits - 1)
    theirs, _, fell_back = quantize_weight(
        weight[None].clone(), hessian[None].clone(), scale[None], shifted[None].to(torch.int8), None, arguments
    )
    assert not bool(fell_back.any())
    # both in float32: another order of sums may send one weight in thousands to the next code
    other = (ours.weight() - theirs[0]).abs() > 1e-6
    assert int(other.sum()) <= 2e-3 * other.numel()
    assert loss(weight, ours.weight(), hessian) == pytest.approx(loss(weight, theirs[0], hessian), rel=0.01)


def test_two_columns_by_hand():
    """H = [[1, h], [h, 1]]: after the first column's error e, the second is best at w₂ + h·e."""
    weight = torch.tensor([[0.30, 1.0]])
    ours = quantize(
        weight, factor(torch.tensor([[1.0, 0.8], [0.8, 1.0]]), damping=1e-6), bits=2, group_size=2, symmetric=True
    )
    # the scale is 1: 0.30 goes to 0, and what is lost, 0.30 · 0.8, is added to 1.0, which stays the code 1
    assert ours.grid.scale_OG.tolist() == [[1.0]]
    assert ours.codes_OI.tolist() == [[0, 1]]
    moved = quantize(
        torch.tensor([[0.45, 0.2, 1.0]]),
        factor(torch.tensor([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]]), damping=1e-6),
        bits=2,
        group_size=None,
        symmetric=True,
    )
    # 0.2 + 0.9 · 0.45 = 0.605 goes to 1, to nearest it would go to 0
    assert moved.codes_OI.tolist() == [[0, 1, 1]]


@pytest.mark.parametrize("symmetric", [True, False])
def test_zeros_stay_and_their_columns_errors_are_made_good(symmetric):
    weight, hessian = problem()
    pruned = weight * (torch.rand(weight.shape, generator=torch.Generator().manual_seed(3)) > 0.5)
    ours = quantize(pruned, factor(hessian, damping=0.01), bits=4, group_size=32, symmetric=symmetric)
    assert bool((ours.weight()[pruned == 0] == 0).all())
    nearest = fit(pruned, bits=4, group_size=32, symmetric=symmetric, dtype=torch.bfloat16).nearest(pruned)
    assert loss(pruned, ours.weight(), hessian) < loss(pruned, nearest, hessian)


def test_columns_of_no_input_are_rounded_to_nearest():
    weight, hessian = problem()
    hessian[:, 5] = hessian[5] = 0
    ours = quantize(weight, factor(hessian, damping=0.01), bits=8, group_size=None, symmetric=True)
    assert bool(((ours.weight()[:, 5] - weight[:, 5]).abs() <= ours.grid.scale_OG[:, 0] / 2 + 1e-6).all())


def test_a_singular_second_moment_is_damped_until_it_can_be_inverted():
    x = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    found = factor(x.T @ x, damping=1e-9)
    assert found.damping in [pytest.approx(1e-9 * 10**tenfold) for tenfold in range(1, 9)]
    assert bool(torch.isfinite(found.upper_II).all())


def test_inputs_that_are_no_numbers_are_refused():
    hessian = torch.eye(4)
    hessian[1, 2] = float("nan")
    with pytest.raises(HemostatError) as caught:
        factor(hessian, damping=0.01)
    assert caught.value.code is ErrorCode.ACTIVATIONS_NOT_FINITE


@pytest.mark.parametrize(
    ("kind", "act_order", "most"),
    [*((kind, False, 0.9) for kind in ("llama", "qwen2", "gemma2")), ("llama", True, 0.95)],
)
def test_models_lose_less_than_by_round_to_nearest(tiny, store, kind, act_order, most):
    """Random inputs are alike in power, so that the order of columns brings nothing and fixed grids cost a little."""
    shared = {"bits": 4, "group_size": 32}
    seen = text(16, 128)
    with (
        operate(tiny(kind), store, {"type": "quantize.rtn"} | shared) as nearest,
        operate(tiny(kind), store, {"type": "quantize.gptq", "act_order": act_order} | shared, seen=seen) as ours,
    ):
        assert ours.manifest.bits_per_weight == nearest.manifest.bits_per_weight == 4 + 20 / 32
        assert divergence(tiny(kind), ours.path) < most * divergence(tiny(kind), nearest.path)
        assert ours.manifest.steps[0].warnings == ()
        before, after = tensors(tiny(kind)), tensors(ours.path)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.endswith("_proj.weight")}
