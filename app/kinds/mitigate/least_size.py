"""A budget that no treatment can keep, from shapes alone: every treatment starts from the candidate, and none takes
fewer bytes than it does."""

from __future__ import annotations

from typing import Final

from app.contracts.errors import ErrorCode, HemostatError
from app.kinds.mitigate.request import Budget
from app.models.checkpoint import CheckpointInfo
from app.models.layer_names import in_layer
from app.models.modules import Weight
from app.models.steps import after_one, check_one
from app.models.steps.lowrank import rank_of
from app.recipes.base import Step
from app.recipes.lowrank import Truncated
from app.recipes.recipe import Recipe

# Sizes that are expected are this near to what manifests count; what is nearer to a limit is tried.
SLACK: Final = 1.02
_FULL_BITS: Final = {"BF16": 16, "F16": 16, "F32": 32}
# Bits of a number of a low-rank factor.
_FACTOR_BITS: Final = 16


def least_bytes(info: CheckpointInfo, recipe: Recipe) -> int | None:
    """Bytes that a model takes at least after a recipe that its check takes, its weights' codes and low-rank factors
    alone counted; exact without a recipe. None if a step changes the shape of a checkpoint of several dtypes: which
    one a part has that goes or comes is not told by shapes.
    """
    # Of a tensor's bytes, those that it takes at least.
    shares = dict.fromkeys(info.tensors, 1.0)
    for step in recipe:
        # Others leave each weight as it is stored, or in more: pruned, merged and interpolated ones count in full.
        if isinstance(step, Truncated) or step.code_bits is not None:
            for weight in check_one(info, step, pointer="/candidate/recipe"):
                shares[weight.name] = min(shares[weight.name], _share(step, weight))
        changed = after_one(info, step)
        if {name: of.shape for name, of in changed.tensors.items()} != {n: of.shape for n, of in info.tensors.items()}:
            if len({tensor.dtype for tensor in info.tensors.values()}) > 1:
                return None
            shares = _of_parts(shares, changed)
        info = changed
    # The second copy of a tied embedding, which some checkpoints have, is written by no step.
    left = {name: of for name, of in info.tensors.items() if not (recipe and info.tied and name == "lm_head.weight")}
    return int(sum(shares[name] * tensor.bytes for name, tensor in left.items()))


def _of_parts(shares: dict[str, float], changed: CheckpointInfo) -> dict[str, float]:
    """The least that any layer's tensor of a name took is what one takes whose layer has another number now."""
    least: dict[str, float] = {}
    for name, share in shares.items():
        least[_place(name)] = min(share, least.get(_place(name), 1.0))
    return {name: least.get(_place(name), 1.0) for name in changed.tensors}


def _place(name: str) -> str:
    place = in_layer(name)
    return name if place is None else place.path


def check_budget(budget: Budget, least: int, parameters: int, *, treatment: str = "") -> None:
    """Raises INVALID_REQUEST if a model of `least` bytes and so many parameters is beyond the budget for sure.

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
            f"the budget is {budget.bits_per_weight:.4g} bits per weight, and {whose} {bits:.4g} or more",
            hint=hint,
            pointer="/budget/bits_per_weight",
        )


def _share(step: Step, weight: Weight) -> float:
    """Of a weight's bytes, those that it takes at least after the step."""
    if isinstance(step, Truncated):
        outputs, inputs = weight.shape
        numbers = rank_of(step, weight.shape) * (outputs + inputs) / (outputs * inputs)
        return min(1.0, _FACTOR_BITS * numbers / _FULL_BITS[weight.dtype])
    return (step.code_bits or _FULL_BITS[weight.dtype]) / _FULL_BITS[weight.dtype]
