"""A budget that no treatment can keep, from shapes alone: every treatment starts from the candidate, and none takes
fewer bytes than it does."""

from __future__ import annotations

from typing import Final

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.recipe import (
    QuantizeAwq,
    QuantizeDynamic,
    QuantizeGptq,
    QuantizeRtn,
    QuantizeSmoothquant,
    Recipe,
    Step,
)
from app.contracts.requests.mitigate import Budget
from app.models.checkpoint import CheckpointInfo
from app.models.modules import select

# Sizes that are expected are this near to what manifests count; what is nearer to a limit is tried.
SLACK: Final = 1.02
_FULL_BITS: Final = {"BF16": 16, "F16": 16, "F32": 32}
# Bits of a weight's code, where a step leaves no choice.
_FIXED: Final = {"quantize.fp8": 8, "quantize.nf4": 4}
# The fewest bits that a module has in a mixture of widths.
_MIXED: Final = 3
# Steps after which every weight is stored as before, or in more.
_NO_SMALLER: Final = frozenset(
    {
        "prune.magnitude",
        "prune.wanda",
        "prune.sparsegpt",
        "prune.ria",
        "prune.gradient",
        "quantize.activations",
        "quantize.kv_cache",
        "repair.lowrank",
        "adapter.lora",
        "norm.scale",
        "norm.epsilon",
        "norm.drop",
        "norm.tweak",
    }
)


def least_bytes(info: CheckpointInfo, recipe: Recipe) -> int | None:
    """Bytes that a model takes at least after a recipe, its weights' codes alone counted; exact without a recipe. None
    where a step takes parts of the model away or adds some: that is not told without making it."""
    sizes = {name: float(tensor.bytes) for name, tensor in info.tensors.items()}
    for step in recipe:
        kind = str(getattr(step, "type", ""))
        if kind in _NO_SMALLER:
            continue
        bits = _code_bits(step, kind)
        if bits is None:
            return None
        for weight in select(info, step):
            sizes[weight.name] = min(
                sizes[weight.name], info.tensors[weight.name].bytes * bits / _FULL_BITS[weight.dtype]
            )
    return int(sum(sizes.values()))


def check_budget(budget: Budget, least: int, parameters: int, *, treatment: str = "") -> None:
    """Raises INVALID_REQUEST where a model of `least` bytes and so many parameters is beyond the budget for sure.

    `treatment` is the one that takes so little; empty: the candidate itself, and no treatment takes less.
    """
    bits = 8 * least / max(1, parameters)
    whose = f"the smallest of the allowed treatments, {treatment}, takes" if treatment else "the candidate itself takes"
    hint = (
        "give a larger budget, or allow treatments that take no bytes"
        if treatment
        else "no treatment takes fewer: give a budget above that, or damage the candidate more"
    )
    if budget.bytes is not None and least > SLACK * budget.bytes:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"the budget is {budget.bytes:,} bytes, and {whose} {least:,} or more",
            hint=hint,
            pointer="/budget/bytes",
        )
    if budget.bits_per_weight is not None and bits > SLACK * budget.bits_per_weight:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"the budget is {budget.bits_per_weight:.4g} bits a weight, and {whose} {bits:.4g} or more",
            hint=hint,
            pointer="/budget/bits_per_weight",
        )


def _code_bits(step: Step, kind: str) -> float | None:
    if isinstance(step, QuantizeRtn | QuantizeGptq | QuantizeAwq | QuantizeSmoothquant):
        return float(step.bits)
    if isinstance(step, QuantizeDynamic):
        return min(step.bits, _MIXED) if step.mixed else step.bits
    return _FIXED.get(kind)
