"""SmoothQuant: outliers of activations move into the weights, then both are rounded.

Xiao et al., *SmoothQuant* (arXiv 2211.10438), equation 4: s = max|x|^α / max|w|^(1 − α) for each input channel
(`strength` is α). It is folded into the norm before (q, k, v; gate, up). Weights: symmetric, a scale an output channel.
Activations: symmetric, a scale a token at run time, or (`dynamic` false) one fixed by the greatest value seen on the
text.

Packed, vLLM's own kernels do both. Simulated, the weights are written back in their dtype, and config.json shows the
engine which layers' inputs to round (`app.contracts.simulation`).

llm-compressor takes max x − min x and 2 max|w| in their place. Its s is ours times ((max − min) / 2 max|x|)^α ·
2^(2α − 1), to which a test holds both. At α = 1/2 they are the same where a channel is as large on either side. It is
written over our own walk for the reasons given in `quantize_gptq`.

Ours: a channel that carries nothing, or whose weights are all 0, keeps s = 1; s is what the rounding of the norm's
weight makes of it. What enters a block is computed with rounded weights and activations as they are."""

import torch

from app.models.simulation import with_activations
from app.models.steps.quantize import activations_entry
from app.recipes.quantize import QuantizeSmoothquant
from workers.surgery.blockwise.observers import Channels
from workers.surgery.blockwise.walk import Block, Group
from workers.surgery.packing import Packing
from workers.surgery.quantize_folding import Folded, pairs
from workers.surgery.quantize_grid import Quantized, fit, scale_dtype
from workers.surgery.quantize_output import Output
from workers.surgery.step_run import StepRun
from workers.surgery.walking import walk_of


def smoothing(most_I: torch.Tensor, weights: list[torch.Tensor], strength: float) -> torch.Tensor:
    """s (I) of the greatest |x| of each channel and of the weights (O, I) behind."""
    weight_I = torch.stack([weight_OI.abs().amax(0) for weight_OI in weights]).amax(0)
    s_I = most_I.pow(strength) / weight_I.pow(1 - strength)
    return torch.where((most_I > 0) & (weight_I > 0), s_I.clamp(min=1e-5), 1.0)


class Smoothquant:
    """`quantize.smoothquant`."""

    version = 1

    def __init__(self, step: QuantizeSmoothquant) -> None:
        self._step = step

    def run(self, context: StepRun) -> None:
        """Block by block."""
        step = self._step
        activations = "dynamic" if step.dynamic else "static"
        packed = step.form == "packed"
        output = Output(context, Packing(step.bits, None, activations=activations) if packed else None)  # type: ignore[arg-type]
        walk = walk_of(context)
        wanted = {weight.name for weight in context.weights}
        scales: dict[str, float] = {}
        for block in walk.blocks():
            names = [name for name in block.linears if name in wanted]
            if not names:
                continue
            folded = Folded(context, block)
            most = self._smooth(context, block, folded, wanted)
            made = {}
            for name in names:
                weight_OI = folded.weight(name)
                dtype = scale_dtype(context.source.tensors[name].dtype)
                grid = fit(weight_OI, bits=step.bits, group_size=None, symmetric=True, dtype=dtype)
                top = 2 ** (step.activation_bits - 1) - 1
                scale = max(float(most[block.group_of(name)].max()) / top, 1e-12)
                scales[name.removesuffix(".weight")] = scale
                quantized = Quantized(grid, grid.encode(weight_OI))
                made[name] = output.put(name, quantized, input_scale=None if step.dynamic else scale)
            folded.close(made)
        output.finish()
        if not packed:
            context.config.update(with_activations(context.config, activations_entry(step, tuple(scales), scales)))

    def _smooth(self, context: StepRun, block: Block, folded: Folded, wanted: set[str]) -> dict[Group, torch.Tensor]:
        """Smooths the block's pairs; the greatest |x| of each channel afterwards."""
        groups = [group for group in block.groups if wanted & set(group)]
        seen = {group: Channels(block.inputs(group)) for group in groups}
        block.collect(seen)
        context.check_cancelled()
        most = {group: channels.most for group, channels in seen.items()}
        for pair in pairs(block, context.source.architecture):
            if pair.norm and pair.group in most:
                weights = [folded.weight(name) for name in pair.group]
                s_I = folded.scale(pair, smoothing(most[pair.group], weights, self._step.strength))
                most[pair.group] = most[pair.group] / s_I
        return most
