"""Which module is given how many bits, from what each costs at every width."""

import shutil
from collections.abc import Mapping
from dataclasses import replace

import torch

from app.contracts.recipe import QuantizeDynamic
from app.models.steps.dynamic import widths
from workers.mitigation.dynamic_scaling.budget import Choice, allocate
from workers.mitigation.dynamic_scaling.grids import Scheme
from workers.mitigation.dynamic_scaling.moments import SAMPLE_TOKENS, sample
from workers.mitigation.dynamic_scaling.sensitivity import MEASURED_BITS, Measured, predicted
from workers.mitigation.gradients import Tape
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.blockwise.walk import Walk
from workers.surgery.shop import Shop

# Windows on which layers' costs are measured.
WINDOWS = 2


def plan_bits(shop: Shop, step: QuantizeDynamic, scheme: Scheme, fisher: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """First addressed tensor of each input group → bits of its layers, within `bits` and its overhead on average."""
    assert shop.calibration is not None  # noqa: S101 - a calibrated step is given one
    tokens_NL = shop.calibration.tokens_NL[:WINDOWS]
    names = {weight.name for weight in shop.weights}
    folder = shop.scratch / "plan"
    folder.mkdir()
    tape = Tape(Skeleton(shop.source, shop.read), tokens_NL, folder, name="tape", check_cancelled=shop.check_cancelled)
    measured = Measured(tape, shop.check_cancelled)
    walk = Walk(
        Skeleton(shop.source, shop.read),
        tokens_NL,
        folder,
        phase="bits",
        progress=shop.progress,
        check_cancelled=shop.check_cancelled,
    )
    choices: dict[str, list[Choice]] = {}
    storage = 0.0
    allowed = widths(step)
    for block in walk.blocks():
        parts = [tuple(name for name in group if name in names) for group in block.groups]
        groups = tuple(part for part in parts if part)
        if not groups:  # not addressed: the walk goes on to the next
            continue
        inputs, _ = sample(block, groups, SAMPLE_TOKENS)
        cost: dict[tuple[str, int], float] = {}
        for group, seen in inputs.items():
            shop.check_cancelled()
            for bits in {*allowed, MEASURED_BITS}:
                cost[group[0], bits] = predicted(block, group, seen, replace(scheme, bits=bits), fisher)
        told = sum(cost[group[0], MEASURED_BITS] for group in inputs)
        whole = tuple(name for group in inputs for name in group)
        real = measured.layer(block.index, whole, replace(scheme, bits=MEASURED_BITS), None)
        agree = real / told if told > 0 else 1.0
        for group in inputs:
            weights = [block.linears[name].weight for name in group]
            count, wide = sum(weight.numel() for weight in weights), weights[0].shape[1]
            storage += count * _stored(wide, step.bits, step)
            choices[group[0]] = [
                Choice(bits, count * replace(scheme, bits=bits).bits_per_weight(wide), agree * cost[group[0], bits])
                for bits in allowed
            ]
    shutil.rmtree(folder)
    found = allocate(choices, storage)
    shop.figures["predicted_nats"] = sum(
        next(one.nats for one in choices[unit] if one.bits == bits) for unit, bits in found.items()
    )
    return found


def _stored(inputs: int, bits: float, step: QuantizeDynamic) -> float:
    """Bits a weight at a width that need not be whole: the budget."""
    overhead = 16 + (0.0 if step.symmetric else bits)
    return bits + overhead / (step.group_size or inputs)
