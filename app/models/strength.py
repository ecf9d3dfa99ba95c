"""Which of a knob's values does more to the model: the order of a sweep's settings.

A field with a share (`app.models.shares`) is ordered by it; values that all remove the same share have no order. Every
other number of a step has a direction of its own:

    rising      more of it changes the model more
    falling     less of it changes the model more: bits, experts that repair, text and time that a step may use
    around      it changes nothing at a neutral value, and more the further it is from there
    unknown     no order of strength is known: a damping, a seed

Values that are switches or words have no order; lists stand in the order given, which is the asker's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

from app.contracts.recipe import Recipe
from app.contracts.requests.sweep import Knob
from app.models.checkpoint import CheckpointInfo
from app.models.shares import shares
from app.models.steps import check_recipe
from app.models.steps.norm import EPSILON

Kind = Literal["share", "rising", "falling", "around", "unknown", "given"]


@dataclass(frozen=True)
class Direction:
    """Where a field's strength lies. `neutral`, of `around` alone: the value that changes nothing, by the checkpoint
    before the step, None where it is not known; with `factor` values are far from it by their ratio."""

    kind: Literal["rising", "falling", "around", "unknown"]
    neutral: Callable[[CheckpointInfo], float | None] = lambda info: None
    factor: bool = False


def _fixed(value: float, info: CheckpointInfo) -> float | None:
    return value


def _configured(name: str, default: float | None, info: CheckpointInfo) -> float | None:
    value = info.config.get(name, default)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


# Of the configuration classes, where config.json says nothing.
_EPSILON_OF_CLASSES: Final = 1e-6
RISING: Final = Direction("rising")
FALLING: Final = Direction("falling")
UNKNOWN: Final = Direction("unknown")
_NEUTRAL_ONE: Final = Direction("around", partial(_fixed, 1.0), factor=True)
_NEUTRAL_ZERO: Final = Direction("around", partial(_fixed, 0.0))

# Fields that mean the same in every step.
_FIELDS: Final = {
    "sparsity": RISING,
    "ratio": RISING,
    "count": RISING,
    # A wider group shares one scale among more weights; null is the whole row.
    "group_size": RISING,
    "bits": FALLING,
    "activation_bits": FALLING,
    "k_bits": FALLING,
    "v_bits": FALLING,
    "rank": FALLING,
    # What a calibrated step may look at, and how long it may mend: null is no limit.
    "calibration_windows": FALLING,
    "calibration_window": FALLING,
    "own_windows": FALLING,
    "passes": FALLING,
    "reconstruct_epochs": FALLING,
    "recovery_s": FALLING,
    "recovery_steps": FALLING,
    "tuning_steps": FALLING,
    "block_epochs": FALLING,
    "distill_steps": FALLING,
    "distill_s": FALLING,
    "iterations": FALLING,
    "noise": RISING,
    # What best suits a model lies somewhere between, and where is not known beforehand.
    "seed": UNKNOWN,
    "damping": UNKNOWN,
    "power": UNKNOWN,
    "owl_threshold": UNKNOWN,
    "owl_range": UNKNOWN,
    "learning_rate": UNKNOWN,
}
_OF_STEPS: Final = {
    ("norm.tweak", "steps"): FALLING,
    ("quantize.smoothquant", "strength"): UNKNOWN,
    # Between two layers, and neither end leaves the model as it is.
    ("extend.interpolate", "weight"): UNKNOWN,
    ("extend.width", "heads"): RISING,
    ("extend.width", "channels"): RISING,
    ("context.linear", "factor"): RISING,
    ("context.ntk", "factor"): RISING,
    ("context.yarn", "factor"): RISING,
    # The larger, the more frequencies are interpolated.
    ("context.yarn", "beta_fast"): RISING,
    ("context.yarn", "beta_slow"): RISING,
    ("moe.router", "temperature"): _NEUTRAL_ONE,
    ("moe.topk", "experts"): Direction("around", partial(_configured, "num_experts_per_tok", None), factor=True),
    ("norm.scale", "factor"): _NEUTRAL_ONE,
    ("norm.scale", "shift"): _NEUTRAL_ZERO,
    ("norm.epsilon", "epsilon"): Direction("around", partial(_configured, EPSILON, _EPSILON_OF_CLASSES), factor=True),
    ("adapter.lora", "strength"): _NEUTRAL_ZERO,
    ("merge.linear", "weight"): _NEUTRAL_ZERO,
}


@dataclass(frozen=True)
class Order:
    """Values in the order of their strength.

    `places`: of each value among those asked for, weakest first. `neutral`: of `around`, what changes nothing.
    `sides`: where values lie on both sides of it, the places of those up to it and of those from it on, weakest first
    each, the neutral one in both; empty otherwise.
    """

    kind: Kind
    places: tuple[int, ...]
    neutral: float | None = None
    sides: tuple[tuple[int, ...], ...] = ()


def direction_of(kind: str, field: str) -> Direction | None:
    """The direction of a field of a type of step; None where none was written down."""
    return _OF_STEPS.get((kind, field)) or _FIELDS.get(field)


def order_of(info: CheckpointInfo, recipe: Recipe, knob: Knob) -> tuple[Order, list[float] | None]:
    """The order of a knob's values, and s of each where it removes a share; `info` is the model before the recipe.

    Numbers of the same s stand by their own direction, other values of the same s as they were given: which of them
    does more to the model is not known beforehand.

    Raises what `check_recipe` raises for a recipe that the model cannot take.
    """
    share = shares(info, recipe, knob)
    kind = str(getattr(recipe[knob.step], "type", ""))
    if share is not None:
        given = weakest_first(knob.values, direction_of(kind, knob.field)) or tuple(range(len(share)))
        if len(set(share)) == 1:
            return Order("unknown", given), share
        return Order("share", tuple(sorted(given, key=lambda place: share[place]))), share
    before = check_recipe(info, recipe[: knob.step], pointer="/candidate/recipe")
    return by_direction(knob.values, kind, knob.field, before), None


def by_direction(values: tuple[Any, ...], kind: str, field: str, info: CheckpointInfo) -> Order:
    """The order of the values of a field of a step; `info` is the checkpoint before it."""
    given = tuple(range(len(values)))
    if any(isinstance(value, str | bool) for value in values):
        return Order("unknown", given)
    if not all(value is None or isinstance(value, int | float) for value in values):
        return Order("given", given)
    found = direction_of(kind, field) or UNKNOWN
    one_way = weakest_first(values, found)
    if one_way is not None:
        return Order(found.kind, one_way)
    numbers = _numbers(values)
    rising = tuple(sorted(given, key=lambda place: numbers[place]))
    neutral = found.neutral(info)
    if found.kind == "unknown" or neutral is None or math.inf in numbers:
        return Order("unknown", rising)
    far = [_distance(number, neutral, factor=found.factor) for number in numbers]
    places = tuple(sorted(given, key=lambda place: (far[place], numbers[place])))
    below = tuple(place for place in rising[::-1] if numbers[place] <= neutral)
    above = tuple(place for place in rising if numbers[place] >= neutral)
    both = numbers[rising[0]] < neutral < numbers[rising[-1]]
    return Order("around", places, neutral, (below, above) if both else ())


def weakest_first(values: Sequence[Any], direction: Direction | None) -> tuple[int, ...] | None:
    """Places of values of a field whose strength goes one way, weakest first; None of any other field, and of values
    that are neither numbers nor null."""
    plain = all(value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values)
    if direction is None or direction.kind not in {"rising", "falling"} or not plain:
        return None
    numbers = _numbers(values)
    rising = tuple(sorted(range(len(numbers)), key=lambda place: numbers[place]))
    return rising if direction.kind == "rising" else rising[::-1]


def _numbers(values: Sequence[Any]) -> list[float]:
    # No limit, or left as it is: beyond every number.
    return [math.inf if value is None else float(value) for value in values]


def _distance(value: float, neutral: float, *, factor: bool) -> tuple[float, float]:
    """How far a value is from the neutral one. No factor leads to a value of the other sign: it lies beyond all."""
    plain = abs(value - neutral)
    if not factor:
        return plain, plain
    return (abs(math.log(value / neutral)) if value * neutral > 0 else math.inf), plain
