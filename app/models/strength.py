"""Which of a knob's values does more to the model: the order of a sweep's settings.

A field with a share (`app.models.shares`) is ordered by it; every other number of a step by the direction that its
declaration has (`app.recipes.strength`). Values that all remove the same share have no order, nor have those
that are switches or words; lists stand in the order given, which is the asker's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from app.contracts.request import Knob
from app.models.checkpoint import CheckpointInfo
from app.models.shares import shares
from app.models.steps import check_recipe
from app.recipes.recipe import STEPS, Recipe
from app.recipes.strength import UNKNOWN, Direction, declared

Kind = Literal["share", "rising", "falling", "around", "unknown", "given"]


@dataclass(frozen=True)
class Order:
    """Values in the order of their strength.

    `places`: of each value among those asked for, weakest first. `neutral`: of `around`, what changes nothing; the
    strength of a value is its distance from it, on either side.
    """

    kind: Kind
    places: tuple[int, ...]
    neutral: float | None = None


def direction_of(kind: str, field: str) -> Direction | None:
    """The direction of a field of a type of step; None if its declaration has none."""
    step = STEPS.get(kind)
    found = None if step is None else step.model_fields.get(field)
    return None if found is None else declared(found)


def order_of(info: CheckpointInfo, recipe: Recipe, knob: Knob) -> tuple[Order, list[float] | None]:
    """The order of a knob's values, and s of each where it removes a share; `info` is the model before the recipe.

    Numbers of the same s stand by their own direction, other values of the same s as they were given. Which of them
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
    neutral = _neutral(found, info)
    if found.kind == "unknown" or neutral is None or math.inf in numbers:
        return Order("unknown", rising)
    far = [_distance(number, neutral, factor=found.factor) for number in numbers]
    places = tuple(sorted(given, key=lambda place: (far[place], numbers[place])))
    return Order("around", places, neutral)


def weakest_first(values: Sequence[Any], direction: Direction | None) -> tuple[int, ...] | None:
    """Places of values of a field whose strength goes one way, weakest first; None of any other field, and of values
    that are neither numbers nor null."""
    plain = all(value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values)
    if direction is None or direction.kind not in {"rising", "falling"} or not plain:
        return None
    numbers = _numbers(values)
    rising = tuple(sorted(range(len(numbers)), key=lambda place: numbers[place]))
    return rising if direction.kind == "rising" else rising[::-1]


def _neutral(direction: Direction, info: CheckpointInfo) -> float | None:
    """The value that changes nothing in a checkpoint; None if it is not known."""
    value: Any = direction.neutral
    if direction.configured is not None:
        value = info.config.get(direction.configured, value)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _numbers(values: Sequence[Any]) -> list[float]:
    # No limit, or left as it is: beyond every number.
    return [math.inf if value is None else float(value) for value in values]


def _distance(value: float, neutral: float, *, factor: bool) -> tuple[float, float]:
    """How far a value is from the neutral one. No factor leads to a value of the other sign: it is beyond all."""
    plain = abs(value - neutral)
    if not factor:
        return plain, plain
    return (abs(math.log(value / neutral)) if value * neutral > 0 else math.inf), plain
