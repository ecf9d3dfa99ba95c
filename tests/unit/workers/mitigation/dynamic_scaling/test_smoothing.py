"""Smoothing is the same function, and what is chosen is what errs least."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from app.models.checkpoint import inspect
from workers.mitigation.dynamic_scaling.grids import Scheme
from workers.mitigation.dynamic_scaling.moments import sample
from workers.mitigation.dynamic_scaling.smoothing import STRENGTHS, output_error, scale_for, smooth_block
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.blockwise.walk import Walk
from workers.surgery.channels import Channels
from workers.surgery.quantize_folding import Folded, Pair

TOKENS = torch.randint(0, 300, (2, 24), generator=torch.Generator().manual_seed(0))


def exact(folder: Path, source: Path) -> dict[str, torch.Tensor]:
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


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2"])
def test_a_smoothed_block_is_the_same_function(kind: str, tiny: Callable[..., Path], tmp_path: Path) -> None:
    tensors = exact(tmp_path, tiny(kind, num_hidden_layers=1))
    info = inspect(tmp_path)
    walk = Walk(Skeleton(info, tensors.__getitem__, dtype=torch.float32), TOKENS, tmp_path)
    shop: Any = SimpleNamespace(
        source=info, read=lambda name: tensors[name].clone(), put=lambda *_, **__: None, channels=Channels.of(info)
    )
    for block in walk.blocks():
        before = [out.clone() for _, _, out in block.outputs()]
        folded = Folded(shop, block)
        # 3-bit weights that meet 4-bit activations: smoothing pays somewhere.
        divided, strengths = smooth_block(
            block, folded, info.architecture, sample(block, block.groups, 48)[0], Scheme(3, None, True), 4, {}, tensors
        )
        folded.close({})
        assert len(divided) == sum(strength > 0 for strength in strengths) > 0
        for (_, _, out), known in zip(block.outputs(), before, strict=True):
            torch.testing.assert_close(out, known, rtol=1e-4, atol=1e-4 * float(known.abs().max()))


def test_scaled_weights_times_scaled_inputs_are_exact_in_float64() -> None:
    draws = torch.Generator().manual_seed(0)
    weight_OI, x_TI = torch.randn(8, 12, generator=draws).double(), torch.randn(20, 12, generator=draws).double()
    pair = Pair(("a",), rows="b", head=3, repeats=2)
    for strength in STRENGTHS:
        for bits in (None, 8):
            s_I = pair.spread(scale_for(pair, x_TI, [weight_OI], strength, bits))
            torch.testing.assert_close((x_TI / s_I) @ (weight_OI * s_I).T, x_TI @ weight_OI.T, rtol=1e-12, atol=1e-12)


def test_heads_that_share_values_share_their_scale() -> None:
    pair = Pair(("a",), rows="b", head=3, repeats=2)
    x_TI = torch.randn(20, 12, generator=torch.Generator().manual_seed(2))
    s_P = scale_for(pair, x_TI, [torch.randn(8, 12)], 0.5, None)
    assert s_P.shape == (6,)
    spread = pair.spread(s_P)
    assert torch.equal(spread[0:3], spread[3:6])
    assert torch.equal(spread[6:9], spread[9:12])


def test_an_outlier_channel_is_smoothed_where_activations_are_rounded() -> None:
    draws = torch.Generator().manual_seed(0)
    weight_OI, x_TI = torch.randn(16, 12, generator=draws), torch.randn(64, 12, generator=draws)
    x_TI[:, 5] *= 60
    pair, scheme = Pair(("a",), norm="n"), Scheme(8, None, True)
    plain = output_error(weight_OI, x_TI, torch.ones(12), scheme, 8, None)
    smooth = output_error(weight_OI, x_TI, scale_for(pair, x_TI, [weight_OI], 0.5, 8), scheme, 8, None)
    assert smooth < 0.3 * plain


def test_the_error_is_the_weighted_mean_square_in_closed_form() -> None:
    draws = torch.Generator().manual_seed(0)
    weight_OI, x_TI = torch.randn(4, 8, generator=draws), torch.randn(16, 8, generator=draws)
    fisher_O = torch.tensor([1.0, 0, 2, 0.5])
    step_O1 = weight_OI.abs().amax(1, keepdim=True) / 3
    step_O1 = step_O1.bfloat16().float()
    gap_TO = x_TI.double() @ ((weight_OI / step_O1).round().clamp(-4, 3) * step_O1 - weight_OI).double().T
    closed = float((gap_TO.square().mean(0) * fisher_O).sum())
    assert output_error(weight_OI, x_TI, torch.ones(8), Scheme(3, None, True), None, fisher_O) == pytest.approx(
        closed, rel=1e-4
    )


def test_tokens_count_in_the_output_error_as_they_are_weighted() -> None:
    draws = torch.Generator().manual_seed(4)
    weight_OI, x_TI = torch.randn(5, 8, generator=draws), torch.randn(6, 8, generator=draws)
    scheme, whole_I = Scheme(3, None, True), torch.ones(8)
    each = [output_error(weight_OI, x_TI[t : t + 1], whole_I, scheme, None, None) for t in range(6)]
    weight_T = torch.tensor([6.0, 0, 0, 0, 0, 0])
    assert output_error(weight_OI, x_TI, whole_I, scheme, None, None, weight_T) == pytest.approx(each[0], rel=1e-4)
    assert output_error(weight_OI, x_TI, whole_I, scheme, None, None) == pytest.approx(sum(each) / 6, rel=1e-4)


def rounded(x: torch.Tensor, bits: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Each row on a symmetric grid of its own, its scale kept in `dtype`."""
    scale = (x.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)).to(dtype).double()
    return (x / scale).round() * scale


@pytest.mark.parametrize("tokens", [None, 3, 40])
def test_the_strength_is_that_of_least_error_where_an_error_costs_divergence(
    tiny: Callable[..., Path], tmp_path: Path, tokens: int | None
) -> None:
    """Against every strength tried by hand in float64, with all of the gradient at one output of one layer after
    another, and all tokens counting the same, or one alone."""
    tensors = exact(tmp_path, tiny("llama", num_hidden_layers=1))
    info = inspect(tmp_path)
    walk = Walk(Skeleton(info, tensors.__getitem__, dtype=torch.float32), TOKENS, tmp_path)
    block = next(walk.blocks())
    group = block.groups[0]
    inputs = sample(block, (group,), 48)[0]
    x = inputs[group].double()
    wholes = [tensors[name] for name in group]
    scales = [scale_for(Pair(group, norm="n"), inputs[group], wholes, strength, 4).double() for strength in STRENGTHS]
    weight_T = torch.ones(len(x)) if tokens is None else torch.eye(len(x))[tokens] * len(x)
    chosen, best = [], []
    for name, whole in zip(group, wholes, strict=True):
        for output in (0, 7, 19):
            shop: Any = SimpleNamespace(
                source=info,
                read=lambda name: tensors[name].clone(),
                put=lambda *_, **__: None,
                channels=Channels.of(info),
            )
            fisher = {other: torch.zeros(len(weight)) for other, weight in zip(group, wholes, strict=True)}
            fisher[name][output] = 2.0
            _, strengths = smooth_block(
                block,
                Folded(shop, block),
                info.architecture,
                inputs,
                Scheme(3, None, True),
                4,
                fisher,
                tensors,
                dict.fromkeys(group, weight_T),
            )
            w = whole[output].double()
            costs = [
                float(weight_T.double() @ (rounded(x / s, 4) @ rounded(w * s, 3, torch.bfloat16) - x @ w).square())
                for s in scales
            ]
            chosen.append(strengths[0])
            best.append(STRENGTHS[costs.index(min(costs))])
    assert chosen == best
    assert len(set(best)) > 1
