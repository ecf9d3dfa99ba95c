"""The result as a checkpoint: simulated, or packed with a scheme for each module.

Simulated, weights are written in their own dtype, and config.json shows the engine which inputs to round at run time
(`app.contracts.simulation`). Packed, compressed-tensors' config groups give every module its bits.
"""

from collections.abc import Iterable

import torch

from app.models.simulation import with_activations
from app.models.steps.dynamic import activations_entry
from app.recipes.notices import StepNotice
from app.recipes.quantize import QuantizeDynamic
from workers.mitigation.dynamic_scaling.learned import LearnedBlock
from workers.mitigation.dynamic_scaling.rounding import Rounded
from workers.surgery.packing import Activations, Packer, Packing
from workers.surgery.safetensors_writer import DTYPES
from workers.surgery.step_run import StepRun


class Result:
    """Puts blocks into a context."""

    def __init__(self, context: StepRun, step: QuantizeDynamic) -> None:
        self._shop, self._step = context, step
        self._packer = Packer(context) if step.form == "packed" else None
        self._modules: dict[int, int] = {}
        self._elements = self._storage = 0.0
        self._biases = False
        self._blocks = 0

    def put(self, blocks: Iterable[LearnedBlock]) -> None:
        """Every block, as it comes (what makes it may train it); then what the configuration has to say."""
        context, step = self._shop, self._step
        for block in blocks:
            context.check_cancelled()
            self._put_block(block)
            del block  # a block is large: it is not held while the next is made
        for bits, count in sorted(self._modules.items()):
            context.figures[f"modules_{bits}_bit"] = count
        context.figures["bits_per_weight"] = self._storage / self._elements
        if self._packer is not None:
            self._packer.finish()
        else:
            context.warn(StepNotice.SIMULATED())
            if step.activation_bits is not None:
                context.config.update(with_activations(context.config, activations_entry(step, context.weights)))
        if not self._biases:
            context.warn(StepNotice.NO_BIASES())

    @torch.no_grad()
    def _put_block(self, block: LearnedBlock) -> None:
        context = self._shop
        prefix = f"model.layers.{self._blocks}."
        self._blocks += 1
        self._biases |= any(path.endswith(".bias") for path in block.vectors)
        for path in block.vectors:
            dtype = DTYPES[context.source.tensors[prefix + path].dtype]
            made = block.vector(path).to(dtype)
            if not torch.equal(made, context.read(prefix + path)):
                context.put(prefix + path, made)
        for path, learned in block.weights.items():
            self._put(prefix + path, learned.finished())
            rounded = learned.rounded
            self._elements += rounded.codes_OI.numel()
            self._storage += rounded.scheme.storage(*rounded.codes_OI.shape)

    def _put(self, name: str, rounded: Rounded) -> None:
        context, step = self._shop, self._step
        scheme = rounded.scheme
        bits = scheme.bits_per_weight(rounded.codes_OI.shape[1])
        self._modules[scheme.bits] = self._modules.get(scheme.bits, 0) + 1
        if self._packer is None:
            context.put(name, rounded.weight().to(DTYPES[context.source.tensors[name].dtype]), bits=bits)
            return
        activations: Activations = "none" if step.activation_bits is None else "dynamic"
        packing = Packing(scheme.bits, scheme.group_size, scheme.symmetric, activations=activations)
        self._packer.put(name.removesuffix(".weight"), packing, rounded.quantized(), bits=bits)
