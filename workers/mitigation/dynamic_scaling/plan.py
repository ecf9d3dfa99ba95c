"""Which module is given how many bits, by what each was measured to cost at every width.

A unit's layers are rounded to nearest on searched grids at each width, the others stay as they were, and the model is
run to its end (`sensitivity.Measured`). What units cost together is taken to be the sum.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from app.models.steps.dynamic import widths
from app.recipes.quantize import QuantizeDynamic
from workers.mitigation.dynamic_scaling.budget import Choice, allocate
from workers.mitigation.dynamic_scaling.grids import Scheme
from workers.mitigation.dynamic_scaling.moments import sample
from workers.mitigation.dynamic_scaling.rounding import nearest
from workers.mitigation.dynamic_scaling.sensitivity import Measured
from workers.mitigation.gradients import LayerGradients, Tape
from workers.mitigation.importance import importance
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.blockwise.walk import Block, Group, Walk
from workers.surgery.step_run import StepRun

# What units cost is measured on so many windows, so many of the first tokens of each.
WINDOWS, TOKENS = 2, 256


def plan_bits(
    context: StepRun, step: QuantizeDynamic, scheme: Scheme, fisher: Mapping[str, LayerGradients]
) -> dict[str, Choice]:
    """First addressed tensor of each input group → what its layers have, within `bits` and its overhead on average."""
    folder = context.scratch / "plan"
    folder.mkdir()
    units = _Units(context, step, scheme, fisher, folder).choices()
    shutil.rmtree(folder)
    weights = {weight.name: weight.shape for weight in context.weights}
    budget = sum(outputs * inputs * _stored(inputs, step.bits, step) for outputs, inputs in weights.values())
    found = allocate(units, budget)
    context.figures["predicted_nats"] = sum(one.nats for one in found.values())
    return found


class _Units:
    """What each unit of a model may have, and costs then."""

    def __init__(
        self,
        context: StepRun,
        step: QuantizeDynamic,
        scheme: Scheme,
        fisher: Mapping[str, LayerGradients],
        folder: Path,
    ) -> None:
        self._shop, self._step, self._scheme, self._fisher, self._folder = context, step, scheme, fisher, folder
        self._tokens_NL = context.calibration.tokens_NL[:WINDOWS, :TOKENS]
        self._names = {weight.name for weight in context.weights}

    def choices(self) -> dict[str, Sequence[Choice]]:
        """By the first addressed tensor of the unit."""
        context = self._shop
        # In float32: what eight bits cost is less than what rounding of hidden states in 16 bits does.
        skeleton = Skeleton(context.source, context.read, device=context.device, dtype=torch.float32)
        tape = Tape(skeleton, self._tokens_NL, self._folder, name="tape", check_cancelled=context.check_cancelled)
        measured = Measured(tape, context.check_cancelled)
        walk = Walk(
            Skeleton(context.source, context.read, device=context.device, dtype=torch.float32),
            self._tokens_NL,
            self._folder,
            phase="bits",
            progress=context.progress,
            check_cancelled=context.check_cancelled,
        )
        found: dict[str, Sequence[Choice]] = {}
        for block in walk.blocks():
            parts = [tuple(name for name in group if name in self._names) for group in block.groups]
            units = tuple(part for part in parts if part)
            if not units:  # not addressed: the walk goes on to the next
                continue
            powers = self._powers(block, units)
            asked = [(unit, replace(self._scheme, bits=bits)) for unit in units for bits in widths(self._step)]
            nats = measured.layer(block.index, self._changes(block, asked, powers))
            for unit in units:
                found[unit[0]] = [
                    Choice(scheme.bits, self._storage(block, unit, scheme), cost)
                    for (of, scheme), cost in zip(asked, nats, strict=True)
                    if of == unit
                ]
        return found

    def _changes(
        self, block: Block, asked: Sequence[tuple[Group, Scheme]], powers: Mapping[str, torch.Tensor]
    ) -> Iterator[dict[str, torch.Tensor]]:
        for unit, scheme in asked:
            yield {
                name: nearest(block.linears[name].weight.data, scheme, powers[name], self._shop.check_cancelled)
                for name in unit
            }

    def _powers(self, block: Block, units: tuple[Group, ...]) -> dict[str, torch.Tensor]:
        """Tensor name → E[w x²] of its inputs, w what a token counts."""
        tokens = self._tokens_NL.numel()
        inputs = sample(block, units, tokens)
        windows, length = self._tokens_NL.shape
        found = {}
        for unit, seen_TI in inputs.items():
            for name in unit:
                positions_NL = self._fisher[name].positions_NL
                assert positions_NL is not None  # noqa: S101 - they are asked for
                weight_T = importance(positions_NL[:windows, :length], tokens)
                found[name] = weight_T @ seen_TI.square() / tokens
        return found

    @staticmethod
    def _storage(block: Block, unit: Group, scheme: Scheme) -> float:
        return sum(scheme.storage(*block.linears[name].weight.shape) for name in unit)


def _stored(inputs: int, bits: float, step: QuantizeDynamic) -> float:
    """Bits per weight at a width that need not be whole: the budget."""
    overhead = 16 + (0.0 if step.symmetric else bits)
    return bits + overhead / (step.group_size or inputs)
