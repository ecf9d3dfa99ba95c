"""Channels smoothed: difficulty moved between activations and weights, by as much as the layer's output gains.

s = a^α / w^(1 − α) for each channel (SmoothQuant, arXiv 2211.10438), a the greatest activation of the channel and w
its greatest weight; or, where activations stay as they are, s = a^α with a the channel's mean (AWQ, arXiv 2306.00978).
Folded into norm or rows before, it is the same function. Ours: α is searched for each place, no smoothing among the
choices, by the layers' output error with weights *and* activations rounded, each output channel weighted by what an
error there costs in divergence: the Fisher information E[δ²] of the reference (`workers.mitigation.gradients`).

Shapes: T tokens of the sample, O and I output and input dimension.
"""

from collections.abc import Container, Mapping

import torch

from workers.mitigation.dynamic_scaling.activations import round_tokens
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
    scheme: Scheme,
    activation_bits: int | None,
    fisher: Mapping[str, torch.Tensor],
    names: Container[str],
    weights: Mapping[str, torch.Tensor] | None = None,
) -> tuple[dict[Group, torch.Tensor], list[float]]:
    """Smooths what can be folded before the groups of `seen` (their inputs (T, I) on some text).

    `fisher`: tensor name → E[δ²] (O). `names`: layers that may be changed. `weights`: tensor name → what each token
    counts (T; default: all alike). Returns what each group's input channels
    were divided by (I), and the strengths that were chosen.
    """
    divided: dict[Group, torch.Tensor] = {}
    chosen = []
    for pair in pairs(block, architecture):
        if pair.group not in seen or (pair.rows is not None and pair.rows not in names):
            continue
        inputs_TI = seen[pair.group]
        wholes = [folded.weight(name) for name in pair.group]
        scores = []
        choices = [scale_for(pair, inputs_TI, wholes, strength, activation_bits) for strength in STRENGTHS]
        for s_P in choices:
            s_I = pair.spread(s_P)
            scores.append(
                sum(
                    output_error(
                        weight_OI, inputs_TI, s_I, scheme, activation_bits, fisher.get(name), (weights or {}).get(name)
                    )
                    for name, weight_OI in zip(pair.group, wholes, strict=True)
                )
            )
        best = min(range(len(scores)), key=scores.__getitem__)
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


def output_error(
    weight_OI: torch.Tensor,
    inputs_TI: torch.Tensor,
    s_I: torch.Tensor,
    scheme: Scheme,
    activation_bits: int | None,
    fisher_O: torch.Tensor | None,
    weight_T: torch.Tensor | None = None,
) -> float:
    """Mean over tokens of w Σ_o F_o (ŷ_o − y_o)², the scaled weight rounded to nearest."""
    scaled_OI = weight_OI * s_I
    grid = fit(
        scaled_OI, bits=scheme.bits, group_size=scheme.group_size, symmetric=scheme.symmetric, dtype=scheme.dtype
    )
    given_TI = inputs_TI / s_I
    if activation_bits is not None:
        given_TI = round_tokens(given_TI, activation_bits)
    gap_TO = given_TI @ grid.nearest(scaled_OI).T - inputs_TI @ weight_OI.T
    cost_TO = gap_TO.square()
    cost_O = cost_TO.mean(0) if weight_T is None else weight_T @ cost_TO / len(cost_TO)
    return float((cost_O if fisher_O is None else cost_O * fisher_O).sum())
