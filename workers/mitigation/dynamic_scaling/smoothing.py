"""Channels smoothed: difficulty moved between activations and weights, by as much as the block's output gains.

s = a^α / w^(1 − α) for each channel (SmoothQuant, arXiv 2211.10438), a the greatest activation of the channel and w
its greatest weight. Or, where activations stay as they are, s = a^α with a the channel's mean (AWQ, arXiv 2306.00978).
Folded into norm or rows before, it is the same function. Ours: α is searched for each place, with no smoothing among
the choices. The measure is the error of the *block's* output with weights and activations of the place rounded,
weighted by what an error there costs in divergence (`workers.mitigation.dynamic_scaling.block_error`).

Shapes: T tokens of the sample, I input dimension, P channels of what comes before.
"""

from collections.abc import Callable, Container, Mapping

import torch

from workers.mitigation.dynamic_scaling.block_error import BlockError
from workers.mitigation.dynamic_scaling.grids import Scheme
from workers.surgery.blockwise.walk import Block, Group
from workers.surgery.quantize_folding import Folded, Pair, pairs
from workers.surgery.quantize_grid import fit
from workers.surgery.quantize_smoothquant import smoothing

STRENGTHS = (0.0, 0.25, 0.4, 0.5, 0.6, 0.75)


def smooth_block(
    block: Block,
    folded: Folded,
    architecture: str,
    seen: Mapping[Group, torch.Tensor],
    scheme_of: Callable[[Group], Scheme],
    activation_bits: int | None,
    error: BlockError,
    names: Container[str],
) -> tuple[dict[Group, torch.Tensor], list[float]]:
    """Smooths what can be folded before the groups of `seen` (their inputs (T, I) on some text).

    `scheme_of`: how a group's weights will be stored; `error`: of this block; `names`: layers that may be changed.
    Returns what each group's input channels were divided by (I), and the strengths that were chosen.
    """
    divided: dict[Group, torch.Tensor] = {}
    chosen = []
    for pair in pairs(block, architecture):
        if pair.group not in seen or (pair.rows is not None and pair.rows not in names):
            continue
        wholes = {name: folded.weight(name) for name in pair.group}
        choices = [
            scale_for(pair, seen[pair.group], list(wholes.values()), strength, activation_bits)
            for strength in STRENGTHS
        ]
        costs = []
        for s_P in choices:
            s_I = pair.spread(s_P)
            costs.append(error.of(rounded(wholes, s_I, scheme_of(pair.group)), s_I, activation_bits))
        best = min(range(len(costs)), key=costs.__getitem__)
        chosen.append(STRENGTHS[best])
        if best:
            divided[pair.group] = folded.scale(pair, choices[best])
    return divided, chosen


def scale_for(
    pair: Pair, inputs_TI: torch.Tensor, weights: list[torch.Tensor], strength: float, activation_bits: int | None
) -> torch.Tensor:
    """s of the channels before a place, (P), its geometric mean 1."""
    if strength == 0:
        return torch.ones_like(pair.shared(inputs_TI[0]))
    if activation_bits is None:
        size_I = inputs_TI.abs().mean(0)
        s_I = torch.where(size_I > 0, size_I.pow(strength), 1.0)
    else:
        s_I = smoothing(inputs_TI.abs().amax(0), weights, strength)
    s_P = pair.shared(s_I.log()).exp()
    return (s_P / s_P.log().mean().exp()).clamp(1e-3, 1e3)


def rounded(weights: Mapping[str, torch.Tensor], s_I: torch.Tensor, scheme: Scheme) -> dict[str, torch.Tensor]:
    """Tensor name → W · s (O, I), rounded to nearest."""
    found = {}
    for name, weight_OI in weights.items():
        scaled_OI = weight_OI * s_I
        grid = fit(
            scaled_OI, bits=scheme.bits, group_size=scheme.group_size, symmetric=scheme.symmetric, dtype=scheme.dtype
        )
        found[name] = grid.nearest(scaled_OI)
    return found
