"""Smoothing is the same function, and what is chosen is what errs least."""

from contextlib import ExitStack
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from app.models.checkpoint import inspect
from tests.support.pruning import load
from workers.mitigation.dynamic_scaling.block_error import BlockErrors
from workers.mitigation.dynamic_scaling.grids import Scheme
from workers.mitigation.dynamic_scaling.moments import sample
from workers.mitigation.dynamic_scaling.smoothing import STRENGTHS, rounded, scale_for, smooth_block
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.blockwise.walk import Walk
from workers.surgery.channels import Channels
from workers.surgery.quantize_folding import Folded, Pair, pairs

TOKENS = torch.randint(0, 300, (2, 24), generator=torch.Generator().manual_seed(0))
SCHEME = Scheme(3, None, True)


def exact(folder, source):
    """A copy of a checkpoint in float32, its norms not all 1; its tensors."""
    for file in source.iterdir():
        if file.suffix != ".safetensors":
            (folder / file.name).write_bytes(file.read_bytes())
    draws = torch.Generator().manual_seed(1)
    tensors = {name: tensor.float() for name, tensor in load_file(source / "model.safetensors").items()}
    for name, tensor in tensors.items():
        if "norm" in name:
            tensor.add_(torch.rand(tensor.shape, generator=draws), alpha=0.3)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return tensors


def errors_of(info, tensors):
    return BlockErrors(Skeleton(info, tensors.__getitem__, device="cpu", dtype=torch.float32), TOKENS)


def step_run_of(info, tensors):
    return SimpleNamespace(
        source=info, read=lambda name: tensors[name].clone(), put=lambda *_, **__: None, channels=Channels.of(info)
    )


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2"])
def test_a_smoothed_block_is_the_same_function(kind, tiny, tmp_path):
    tensors = exact(tmp_path, tiny(kind, num_hidden_layers=1))
    info = inspect(tmp_path)
    walk = Walk(Skeleton(info, tensors.__getitem__, device="cpu", dtype=torch.float32), TOKENS, tmp_path)
    context = step_run_of(info, tensors)
    for block in walk.blocks():
        before = [out.clone() for _, _, out in block.outputs()]
        folded = Folded(context, block)
        # 3-bit weights that meet 4-bit activations: smoothing pays somewhere.
        seen, everything = sample(block, block.groups, 48), torch.ones(2, 24)
        with errors_of(info, tensors).block(0, walk.entering.read(0, 2), torch.eye(64), everything) as error:
            divided, strengths = smooth_block(
                block, folded, info.architecture, seen, lambda _: SCHEME, 4, error, tensors
            )
        folded.close({})
        assert len(divided) == sum(strength > 0 for strength in strengths) > 0
        for (_, _, out), known in zip(block.outputs(), before, strict=True):
            torch.testing.assert_close(out, known, rtol=1e-4, atol=1e-4 * float(known.abs().max()))


def test_scaled_weights_times_scaled_inputs_are_exact_in_float64():
    draws = torch.Generator().manual_seed(0)
    weight_OI, x_TI = torch.randn(8, 12, generator=draws).double(), torch.randn(20, 12, generator=draws).double()
    pair = Pair(("a",), rows="b", head=3, repeats=2)
    for strength in STRENGTHS:
        for bits in (None, 8):
            s_I = pair.spread(scale_for(pair, x_TI, [weight_OI], strength, bits))
            torch.testing.assert_close((x_TI / s_I) @ (weight_OI * s_I).T, x_TI @ weight_OI.T, rtol=1e-12, atol=1e-12)


def test_weights_are_rounded_as_they_will_be_with_their_factors_in_closed_form():
    draws = torch.Generator().manual_seed(0)
    weight_OI, s_I = torch.randn(4, 8, generator=draws), torch.rand(8, generator=draws) + 0.5
    scaled_OI = weight_OI * s_I
    step_O1 = (scaled_OI.abs().amax(1, keepdim=True) / 3).bfloat16().float()
    closed_OI = (scaled_OI / step_O1).round().clamp(-4, 3) * step_O1
    torch.testing.assert_close(rounded({"a": weight_OI}, s_I, Scheme(3, None, True))["a"], closed_OI)


def stepped(x, bits, dtype=torch.float64):
    """Each row on a symmetric grid of its own, its scale kept in `dtype`."""
    scale = (x.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)).to(dtype).double()
    return (x / scale).round() * scale


def weight_bits(group):
    """A width for each place of a block, as a mixture has it."""
    return 4 if group[0].endswith(("o_proj.weight", "gate_proj.weight")) else 3


def by_hand(model, group, s_I, bits):
    """What the model's only block gives with a group rounded behind s, less what it gives as it is, in float64."""
    with torch.no_grad(), ExitStack() as stack:
        seen = []
        layer = model.model.layers[0]
        stack.callback(layer.register_forward_hook(lambda _, __, out: seen.append(out)).remove)
        model(TOKENS)
        for name in group:
            linear = model.get_submodule(name.removesuffix(".weight"))
            stack.callback(linear.weight.copy_, linear.weight.clone())
            linear.weight.copy_(stepped(linear.weight * s_I, weight_bits(group), torch.bfloat16))
            stack.callback(
                linear.register_forward_pre_hook(
                    lambda _, args: (args[0] / s_I if bits is None else stepped(args[0] / s_I, bits),)
                ).remove
            )
        model(TOKENS)
        return seen[1] - seen[0]


@pytest.mark.parametrize("activation_bits", [None, 4])
def test_the_strength_is_that_of_least_error_at_the_blocks_output(tiny, tmp_path, activation_bits):
    """Against every strength tried by hand in float64 with transformers' layer, all of the gradient along one direction
    after another."""
    tensors = exact(tmp_path, tiny("llama", num_hidden_layers=1))
    info = inspect(tmp_path)
    walk = Walk(Skeleton(info, tensors.__getitem__, device="cpu", dtype=torch.float32), TOKENS, tmp_path)
    block = next(walk.blocks())
    inputs = sample(block, block.groups, 48)
    model = load(tmp_path, torch.float64)

    def scheme_of(group):
        return Scheme(weight_bits(group), None, True)

    gaps = []  # of each place and strength
    for pair in pairs(block, info.architecture):
        wholes = [tensors[name] for name in pair.group]
        scales = [scale_for(pair, inputs[pair.group], wholes, strength, activation_bits) for strength in STRENGTHS]
        gaps.append([by_hand(model, pair.group, pair.spread(s).double(), activation_bits) for s in scales])
    chosen, best = [], []
    for direction in (0, 7, 19, 40):
        root = torch.zeros(64, 64)
        root[direction, direction] = 1.0
        folded = Folded(step_run_of(info, tensors), block)
        with errors_of(info, tensors).block(0, walk.entering.read(0, 2), root, torch.ones(2, 24)) as error:
            arguments = (info.architecture, inputs, scheme_of, activation_bits, error, tensors)
            chosen.append(smooth_block(block, folded, *arguments)[1])
        costs = [[float(gap_NLD[..., direction].square().mean()) for gap_NLD in place] for place in gaps]
        best.append([STRENGTHS[place.index(min(place))] for place in costs])
    assert chosen == best
    assert len({strength for strengths in best for strength in strengths}) > 2
