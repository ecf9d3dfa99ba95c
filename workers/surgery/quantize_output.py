"""Where methods put weights on an even grid: simulated or packed, as the step asks."""

import torch

from workers.surgery.packing import Packer, Packing
from workers.surgery.quantize_grid import Quantized, bits_per_weight
from workers.surgery.safetensors_writer import DTYPES
from workers.surgery.step_run import StepRun


class Output:
    """Simulated weights are written back in their own dtype; packed ones go through `packing`, by its scheme."""

    def __init__(self, context: StepRun, packing: Packing | None) -> None:
        self._shop, self._packing = context, packing
        self._packer = Packer(context) if packing else None

    def put(
        self,
        name: str,
        quantized: Quantized,
        *,
        input_scale: float | None = None,
    ) -> torch.Tensor:
        """One weight by its tensor's name. Returns it as the result has it, in the source's dtype."""
        grid = quantized.grid
        weight_OI = quantized.weight()
        bits = bits_per_weight(weight_OI.shape[1], bits=grid.bits, group_size=grid.group_size, symmetric=grid.symmetric)
        simulated_OI = weight_OI.to(DTYPES[self._shop.source.tensors[name].dtype])
        if self._packer is None or self._packing is None:
            self._shop.put(name, simulated_OI, bits=bits)
        else:
            module = name.removesuffix(".weight")
            self._packer.put(module, self._packing, quantized, bits=bits, input_scale=input_scale)
        return simulated_OI

    def finish(self) -> None:
        """To be called once all weights are put."""
        if self._packer is not None:
            self._packer.finish()
