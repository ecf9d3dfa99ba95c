"""Inputs of linear layers on fewer bits, at run time: weights stay, config.json says what the engine has to do.

*Dynamic*: a grid for every token, as ZeroQuant (Yao et al., arXiv 2206.01861) has it and vLLM's W8A8 kernels compute
it. *Static*: one grid a tensor, from the least and greatest value over the calibration text, as Jacob et al. (arXiv
1712.05877) observe ranges, but without their moving averages. Ours: what the engine gets, and how that is
simulated. The grids' formulas stand in `workers.surgery.even_grid`; `workers.engine.simulation` acts on the section.
"""

from app.models.simulation import with_activations
from app.models.steps.runtime import activations_entry
from app.recipes.quantize import QuantizeActivations
from workers.surgery.blockwise.observers import Channels
from workers.surgery.even_grid import fixed_grid
from workers.surgery.step_run import StepRun
from workers.surgery.walking import walk_of


class ActivationsStep:
    """`quantize.activations`."""

    version = 1

    def __init__(self, step: QuantizeActivations) -> None:
        self._step = step

    def run(self, context: StepRun) -> None:
        """Adds an entry to the section. Raises ACTIVATIONS_NOT_FINITE, and for static grids what `Skeleton` raises."""
        modules = [weight.module for weight in context.weights]
        scales = None if self._step.dynamic else self._grids(context, set(modules))
        context.config.update(with_activations(context.config, activations_entry(self._step, modules, scales)))
        context.figures["activation_bits"] = self._step.bits
        context.figures["linear_layers"] = len(modules)

    def _grids(self, context: StepRun, modules: set[str]) -> dict[str, tuple[float, int]]:
        walk = walk_of(context, phase="activations")
        grids: dict[str, tuple[float, int]] = {}
        for block in walk.blocks():
            seen = {
                group: Channels(block.inputs(group))
                for group in block.groups
                if any(_module(name) in modules for name in group)
            }
            block.collect(seen)
            for group, channels in seen.items():
                low, high = float(channels.low_I.min()), float(channels.high_I.max())
                grid = fixed_grid(low, high, bits=self._step.bits, symmetric=self._step.symmetric)
                grids |= {_module(name): grid for name in group if _module(name) in modules}
        return grids


def _module(name: str) -> str:
    return name.removesuffix(".weight")
