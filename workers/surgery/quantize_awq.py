"""AWQ: input channels that carry large activations are scaled up before rounding, and so rounded finer.

Lin et al., *AWQ* (arXiv 2306.00978): s = mean|x|^α for each input channel, with α from a grid of 20 between 0 and 1. It
is chosen by ‖Q(W · s)(x / s) − W x‖ over the calibration text. X / s is folded into what comes before. From the
authors' code: s is divided by √(max s · min s).

Ours: the error is that of the layers themselves, which E[x xᵀ] gives exactly for all the text without running it again
for each α. It is tr(D E[x xᵀ] D') with D = Q(W · s) / s − W. The authors run the attention or MLP around them on part
of the text. V_proj before o_proj is folded with grouped queries too, heads that share values sharing s. No clipping is
searched. Where one layer alone is behind (down_proj; o_proj without grouped queries) that is what llm-compressor
searches by too, without its `duo_scaling` (s divided by a mean of the weights). A test holds
it to that on asymmetric grids. The step of its symmetric ones is another. It is written over our own walk for the
reasons given in `quantize_gptq`.

Shapes: O output, I input dimension, P channels of what comes before.
"""

from collections.abc import Sequence

import torch

from app.recipes.quantize import QuantizeAwq
from workers.surgery.blockwise.observers import Channels, SecondMoment
from workers.surgery.blockwise.walk import Block
from workers.surgery.callbacks import CheckCancelled, never_cancelled
from workers.surgery.packing import Packing
from workers.surgery.quantize_folding import Folded, Pair, pairs
from workers.surgery.quantize_grid import Quantized, fit, scale_dtype
from workers.surgery.quantize_output import Output
from workers.surgery.step_run import StepRun
from workers.surgery.walking import walk_of

STEPS = 20


class Inputs:
    """Second moment and channels of one layer's inputs."""

    def __init__(self, inputs: int) -> None:
        self.moment, self.channels = SecondMoment(inputs), Channels(inputs)

    def see(self, x_TI: torch.Tensor) -> None:
        """One batch."""
        self.moment.see(x_TI)
        self.channels.see(x_TI)

    def finite(self) -> bool:
        """Whether all that was summed up is a number."""
        return self.moment.finite() and self.channels.finite()


def candidates(mean_P: torch.Tensor) -> list[torch.Tensor]:
    """mean|x|^α for α from 0 (all 1) to 1, evenly, each normalized; channels that carry nothing are 1."""
    found = []
    for step in range(STEPS):
        s_P = mean_P.pow(step / (STEPS - 1)).clamp_(min=1e-4)
        s_P = torch.where(mean_P > 0, s_P, 1.0)
        found.append(s_P / (s_P.max() * s_P.min()).sqrt())
    return found


def search(
    weights: Sequence[torch.Tensor],
    moment_II: torch.Tensor,
    mean_P: torch.Tensor,
    pair: Pair,
    *,
    bits: int,
    group_size: int | None,
    symmetric: bool,
    dtype: torch.dtype = torch.bfloat16,
    check_cancelled: CheckCancelled = never_cancelled,
) -> tuple[torch.Tensor, float, float]:
    """(s of least error (P), that error, the error of s = 1), for weights (O, I) that share their input."""
    weight_OI = torch.cat(list(weights))
    best_P = torch.ones_like(mean_P)
    errors: list[float] = []
    for s_P in candidates(mean_P):
        check_cancelled()
        s_I = pair.spread(s_P)
        scaled_OI = weight_OI * s_I
        grid = fit(scaled_OI, bits=bits, group_size=group_size, symmetric=symmetric, dtype=dtype)
        moved_OI = grid.nearest(scaled_OI).div_(s_I).sub_(weight_OI)
        error = float(((moved_OI @ moment_II) * moved_OI).sum())
        if not errors or error < min(errors):
            best_P = s_P
        errors.append(error)
    return best_P, min(errors), errors[0]


class Awq:
    """`quantize.awq`."""

    version = 1

    def __init__(self, step: QuantizeAwq) -> None:
        self._step = step

    def run(self, context: StepRun) -> None:
        """Block by block, each seeing what the changed blocks before give."""
        step = self._step
        packing = Packing(step.bits, step.group_size, step.symmetric) if step.form == "packed" else None
        output = Output(context, packing)
        walk = walk_of(context)
        wanted = {weight.name for weight in context.weights}
        before = after = 0.0
        for block in walk.blocks():
            names = [name for name in block.linears if name in wanted]
            if not names:
                continue
            folded = Folded(context, block)
            one, other = self._scale(context, block, folded, wanted)
            before, after = before + one, after + other
            made = {}
            for name in names:
                weight_OI = folded.weight(name)
                dtype = scale_dtype(context.source.tensors[name].dtype)
                grid = fit(weight_OI, bits=step.bits, group_size=step.group_size, symmetric=step.symmetric, dtype=dtype)
                quantized = Quantized(grid, grid.encode(weight_OI))
                made[name] = output.put(name, quantized)
            folded.close(made)
        output.finish()
        if before:
            context.figures["layer error, of round to nearest"] = after / before

    def _scale(self, context: StepRun, block: Block, folded: Folded, wanted: set[str]) -> tuple[float, float]:
        """Scales every pair of the block. Returns the summed errors of s = 1 and of the s that were chosen."""
        step = self._step
        chosen = [pair for pair in pairs(block, context.source.architecture) if wanted & set(pair.group)]
        seen = {pair.group: Inputs(block.inputs(pair.group)) for pair in chosen}
        block.collect(seen)
        before = after = 0.0
        for pair in chosen:
            inputs = seen.pop(pair.group)
            mean_P = pair.shared(inputs.channels.absolute_I / max(1, inputs.channels.tokens))
            s_P, least, plain = search(
                [folded.weight(name) for name in pair.group if name in wanted],
                inputs.moment.mean(),
                mean_P,
                pair,
                bits=step.bits,
                group_size=step.group_size,
                symmetric=step.symmetric,
                dtype=scale_dtype(context.source.tensors[pair.group[0]].dtype),
                check_cancelled=context.check_cancelled,
            )
            folded.scale(pair, s_P)
            before, after = before + plain, after + least
        return before, after
