"""8-bit floats: weights as e4m3 numbers, scaled so that each output channel spans their range.

e4m3 is that of Micikevicius et al. (arXiv 2209.05433; `workers.surgery.e4m3`). scale = max|w| / 448 an output channel,
kept in 16 bits. A weight is rounded to the nearest e4m3 number of w / scale (to even on halves). Activations: as they
are; scaled a token at run time, as vLLM's kernels do but for a division that they write as a product. Or by one scale
for the layer, the greatest |x| on the text over 448. Ours: the walk, and the simulated form.

Packed, vLLM's own kernels do both. Simulated, the weights are written back in their dtype, and config.json shows the
engine which layers' inputs to round (`app.contracts.simulation`)."""

from collections.abc import Iterator

import torch

from app.models.simulation import with_activations
from app.models.steps.quantize import activations_entry
from app.recipes.quantize import QuantizeFp8
from workers.surgery.blockwise.observers import Channels
from workers.surgery.e4m3 import GREATEST, nearest
from workers.surgery.packing import Packer, Packing
from workers.surgery.quantize_grid import scale_dtype, stored
from workers.surgery.step_run import StepRun
from workers.surgery.steps import Visit
from workers.surgery.walking import walk_of


def quantize(weight_OI: torch.Tensor, dtype: torch.dtype = torch.bfloat16) -> tuple[torch.Tensor, torch.Tensor]:
    """(weights on the grid, float32; scales (O, 1), float32, exact in `dtype`)."""
    weight_OI = weight_OI.to(torch.float32)
    scale_O1 = stored(weight_OI.abs().amax(1, keepdim=True) / GREATEST, dtype)
    return nearest(weight_OI / scale_O1) * scale_O1, scale_O1


def bits_per_weight(inputs: int) -> float:
    """The code, and the share of a channel's 16-bit scale."""
    return 8 + 16 / inputs


class Fp8Runner:
    """The weights of `quantize.fp8`, simulated."""

    def __init__(self, step: QuantizeFp8) -> None:
        self._step = step

    def passes(self) -> Iterator[Visit]:
        """None needed."""
        return iter(())

    def apply(self, name: str, weight_OI: torch.Tensor) -> torch.Tensor:
        """Quantized and dequantized."""
        dtype = torch.float16 if weight_OI.dtype == torch.float16 else torch.bfloat16
        return quantize(weight_OI, dtype)[0].to(weight_OI.dtype)

    def bits_per_weight(self, inputs: int) -> float | None:
        """Code, and share of the scale."""
        return bits_per_weight(inputs)

    def nominal_sparsity(self) -> float | None:
        """It asks for none."""
        return None


class Fp8Simulated:
    """`quantize.fp8` with activations, simulated."""

    version = 1

    def __init__(self, step: QuantizeFp8) -> None:
        self._step = step

    def run(self, context: StepRun) -> None:
        """Weight by weight, after a walk over the text where activation scales are fixed by it; and an entry in the
        section. Raises what `Skeleton` raises for such scales."""
        runner = Fp8Runner(self._step)
        scales = _inputs(context) if self._step.activations == "static" else {}
        for done, weight in enumerate(context.weights):
            context.check_cancelled()
            context.progress("surgery", done, len(context.weights))
            made_OI = runner.apply(weight.name, context.read(weight.name))
            context.put(weight.name, made_OI, bits=bits_per_weight(weight.shape[1]))
        entry = activations_entry(self._step, [weight.module for weight in context.weights], scales)
        context.config.update(with_activations(context.config, entry))
        context.figures["activation_bits"] = entry.bits
        context.figures["linear_layers"] = len(entry.modules)


class Fp8Packed:
    """`quantize.fp8`, packed."""

    version = 1

    def __init__(self, step: QuantizeFp8) -> None:
        self._step = step

    def run(self, context: StepRun) -> None:
        """Weight by weight, after a walk over the text where activation scales are fixed by it."""
        step = self._step
        packing = Packing(8, None, float_=True, activations=step.activations)
        packer = Packer(context)
        inputs = _inputs(context) if step.activations == "static" else {}
        for done, weight in enumerate(context.weights):
            context.check_cancelled()
            context.progress("surgery", done, len(context.weights))
            values_OI, scale_O1 = quantize(context.read(weight.name), scale_dtype(weight.dtype))
            packer.put_float(
                weight.module,
                packing,
                values_OI,
                scale_O1,
                bits=bits_per_weight(weight.shape[1]),
                input_scale=inputs.get(weight.module),
            )
        packer.finish()


def _inputs(context: StepRun) -> dict[str, float]:
    """The scale of each layer's inputs on the text, by module."""
    wanted = {weight.name for weight in context.weights}
    walk = walk_of(context)
    found = {}
    for block in walk.blocks():
        seen = {group: Channels(block.inputs(group)) for group in block.groups if wanted & set(group)}
        block.collect(seen)
        for group, channels in seen.items():
            scale = max(float(channels.most.max()) / GREATEST, 1e-12)
            found.update(dict.fromkeys((name.removesuffix(".weight") for name in group), scale))
    return found
