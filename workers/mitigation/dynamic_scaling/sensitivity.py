"""What quantizing a module costs, in nats a token: predicted for every width, measured layer by layer.

To second order, rounding a layer's weight costs ½ Σ_o F_o E[(ŷ_o − y_o)²], ŷ and y what it gives with and without, F_o
= E[δ_o²] the reference's Fisher information at its outputs. That ranks a layer's modules and widths; how much a whole
layer costs is measured: all its modules rounded, the model run to its end, KL(reference ‖ model) taken. Predictions of
a layer's modules are scaled to agree with it. (That importance alone misleads, and the actual error must be looked at,
is reported of Fisher-led allocations; measuring each of 7 · 30 modules at five widths would take too long.)

Shapes: T tokens of a sample.
"""

from collections.abc import Mapping
from contextlib import ExitStack

import torch

from workers.mitigation.dynamic_scaling.activations import rounding_inputs
from workers.mitigation.dynamic_scaling.grids import Scheme
from workers.mitigation.dynamic_scaling.smoothing import output_error
from workers.mitigation.gradients import Tape
from workers.mitigation.objectives import divergence
from workers.surgery.blockwise.walk import Block, Group
from workers.surgery.callbacks import CheckCancelled
from workers.surgery.quantize_grid import fit

# Width at which a layer's cost is measured: damage is plain there, and not yet beyond the second order.
MEASURED_BITS = 4


def predicted(
    block: Block, group: Group, inputs_TI: torch.Tensor, scheme: Scheme, fisher: Mapping[str, torch.Tensor]
) -> float:
    """Nats a token that rounding the layers of one input to nearest costs, to second order."""
    whole_I = torch.ones(inputs_TI.shape[1])
    return 0.5 * sum(
        output_error(block.linears[name].weight.data.to(torch.float32), inputs_TI, whole_I, scheme, None, fisher[name])
        for name in group
    )


class Measured:
    """What each layer costs. `tape` of the model on a few windows."""

    def __init__(self, tape: Tape, check_cancelled: CheckCancelled) -> None:
        self._tape, self._check = tape, check_cancelled

    @torch.no_grad()
    def layer(self, index: int, names: Group, scheme: Scheme, activation_bits: int | None) -> float:
        """KL(model ‖ model with these weights of the layer rounded), nats a token."""
        tape = self._tape
        skeleton, walk = tape.skeleton, tape.walk
        layers = len(skeleton.layers)
        states = {start: tape.states[index].read(start, end) for start, end in walk.batches()}
        for at in range(index, layers):
            block = skeleton.block(at)
            with ExitStack() as stack:
                if at == index:
                    linears = [block.get_submodule(_path(name, index)) for name in names]
                    stack.enter_context(rounding_inputs(linears, activation_bits))  # type: ignore[arg-type]
                    for linear in linears:
                        _round(linear, scheme)
                for start, hidden_NLD in states.items():
                    self._check()
                    states[start] = walk.call(at, hidden_NLD)
            skeleton.release(at)
        total = 0.0
        for start, hidden_NLD in states.items():
            flat_TD = hidden_NLD.flatten(0, 1)
            target_TD = tape.states[layers].read(start, start + len(hidden_NLD)).flatten(0, 1)
            for part in torch.split(torch.arange(len(flat_TD)), 256):
                total += float(divergence(skeleton, flat_TD[part], skeleton, target_TD[part]).sum())
        return total / tape.positions


def _path(name: str, index: int) -> str:
    return name.removeprefix(f"model.layers.{index}.").removesuffix(".weight")


def _round(linear: torch.nn.Module, scheme: Scheme) -> None:
    weight = linear.weight
    assert isinstance(weight, torch.Tensor)  # noqa: S101 - a linear layer has one
    weight_OI = weight.data.to(torch.float32)
    grid = fit(
        weight_OI, bits=scheme.bits, group_size=scheme.group_size, symmetric=scheme.symmetric, dtype=scheme.dtype
    )
    weight.data = grid.nearest(weight_OI).to(weight.dtype)
