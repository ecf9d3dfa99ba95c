"""The settings of a surface: both knobs from left out to furthest, the recipe of each, and what refuses them.

A knob's zero is the recipe without its step. With both knobs in one step that would be the same recipe for both, so
there the zero of each is its first value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.request import Knob
from app.kinds.estimates import Cost
from app.kinds.preflight import Checked
from app.kinds.surface.report import Order
from app.kinds.surface.request import MOST_POINTS, SurfaceRequest
from app.models.knobs import check_knobs, either, recipe_at, told, without
from app.models.strength import direction_of, weakest_first
from app.recipes.recipe import Recipe
from app.recipes.strength import UNKNOWN

Zero = Literal["left out", "first value"]


@dataclass(frozen=True)
class Axis:
    """A knob, and its values from the mildest on.

    The first value is None if the step is left out; any other None is the field's own null. `zero` is where left out
    is. `removes`: whether the knob removes a share of the model, so that damage grows ever faster with it.
    """

    knob: Knob
    values: tuple[Any, ...]
    left_out: bool
    zero: float | None
    removes: bool

    def number(self, place: int) -> float | None:
        """The value at a place as a number; None if it is none."""
        if place == 0 and self.left_out:
            return self.zero
        value = self.values[place]
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    def label(self, place: int) -> str:
        """The value at a place in words."""
        return "left out" if place == 0 and self.left_out else told(self.values[place])


@dataclass(frozen=True)
class Cell:
    """One setting: places of both knobs, the order of their steps, and the recipe."""

    first: int
    second: int
    order: Order
    recipe: Recipe


def zero_of(request: SurfaceRequest) -> Zero:
    """What place 0 of a knob is."""
    return "first value" if request.knobs[0].step == request.knobs[1].step else "left out"


def axes_of(request: SurfaceRequest) -> tuple[Axis, Axis]:
    """Both knobs; values of fields whose strength goes one way from the mildest on, null if a sweep has it, others
    as they were given."""
    steps, left_out = request.candidate.recipe, zero_of(request) == "left out"
    one, other = (_axis(knob, str(getattr(steps[knob.step], "type", "")), left_out=left_out) for knob in request.knobs)
    return one, other


def _axis(knob: Knob, kind: str, *, left_out: bool) -> Axis:
    direction = direction_of(kind, knob.field) or UNKNOWN
    places = weakest_first(knob.values, direction)
    values = knob.values if places is None else tuple(knob.values[place] for place in places)
    return Axis(knob, (None, *values) if left_out else values, left_out, direction.left_out, direction.removes)


def cells_of(request: SurfaceRequest) -> list[Cell]:
    """Every setting, each knob alone first; then the other order of the two steps where it is asked for."""
    axes = axes_of(request)
    return [Cell(p, q, order, _recipe(request, axes, (p, q), order)) for p, q, order in _places(request, axes)]


def _places(request: SurfaceRequest, axes: Sequence[Axis]) -> list[tuple[int, int, Order]]:
    given: list[tuple[int, int, Order]] = [
        (p, q, "as given") for p in range(len(axes[0].values)) for q in range(len(axes[1].values))
    ]
    given.sort(key=lambda place: (min(place[:2]) > 0, place))
    if request.orders != "both":
        return given
    return given + [(p, q, "reversed") for p, q, _ in given if p and q]


def _recipe(request: SurfaceRequest, axes: Sequence[Axis], places: tuple[int, int], order: Order) -> Recipe:
    turned = [
        (axis.knob, axis.values[place]) for axis, place in zip(axes, places, strict=True) if place or not axis.left_out
    ]
    left_out = [axis.knob.step for axis, place in zip(axes, places, strict=True) if axis.left_out and not place]
    recipe = recipe_at(request.candidate.recipe, [knob for knob, _ in turned], [value for _, value in turned])
    if order == "reversed":
        steps = list(recipe)
        one, other = (axis.knob.step for axis in axes)
        steps[one], steps[other] = steps[other], steps[one]
        recipe = tuple(steps)
    return without(recipe, left_out)


def check(request: SurfaceRequest, checked: Checked) -> None:
    """Raises `HemostatError` for knobs, values and orders that the candidate cannot take."""
    check_surface(request, checked.check_recipe)


def cost(request: SurfaceRequest, cost: Cost) -> None:
    """Adds the settings."""
    cost.add_settings(request.planned)


def check_surface(request: SurfaceRequest, check: Callable[[Recipe], object]) -> None:
    """Refuses a surface that could not be measured: each knob alone, then every setting and order, by `check`, which
    raises `HemostatError` for a recipe that the checkpoint cannot take. The pointer is that of what to change."""
    one, other = request.knobs
    check_knobs(request.candidate.recipe, request.knobs, lambda recipe: None)
    if (one.step, one.field) == (other.step, other.field):
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"both knobs turn {one.field} of the same step",
            hint="turn two different fields; for one knob, use a sweep",
            pointer="/knobs/1",
        )
    if request.orders == "both" and one.step == other.step:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            "both knobs are in one step, but another order needs two steps",
            hint="leave `orders` out",
            pointer="/orders",
        )
    axes = axes_of(request)
    points = request.planned
    if points > MOST_POINTS:
        also = ", in both orders," if request.orders == "both" else ""
        added = (
            f": the step left out is one setting more than the {len(one.values)} and {len(other.values)} values given"
            if zero_of(request) == "left out"
            else ""
        )
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"{len(axes[0].values)} × {len(axes[1].values)} settings{also} are {points} points; at most {MOST_POINTS} "
            f"are taken{added}",
            hint="give fewer values",
            pointer="/knobs",
        )
    check_knobs(request.candidate.recipe, request.knobs, check)
    for first, second, order in _places(request, axes):
        places = (first, second)
        pointer = "/orders" if order == "reversed" else "/knobs"
        try:
            check(_recipe(request, axes, places, order))
        except HemostatError as error:
            detail = f"at {_setting(axes, places, order)}: {error.detail}"
            hint = either(error.hint, _without(axes, places, order))
            raise HemostatError(error.code, detail, hint=hint, pointer=pointer) from error
        except ValidationError as error:
            why = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
            raise HemostatError(
                ErrorCode.INVALID_REQUEST,
                f"at {_setting(axes, places, order)} the two knobs do not work together: {why}",
                hint=_without(axes, places, order),
                pointer=pointer,
            ) from None


def _setting(axes: Sequence[Axis], places: tuple[int, int], order: Order) -> str:
    """`sparsity 0.5 with bits 8`."""
    where = " with ".join(f"{axis.knob.field} {axis.label(place)}" for axis, place in zip(axes, places, strict=True))
    return where if order == "as given" else f"{where}, steps exchanged"


def _without(axes: Sequence[Axis], places: tuple[int, int], order: Order) -> str:
    """What to ask for instead of a setting that is refused."""
    if order == "reversed":
        return "ask for the order as given alone"
    turned = [
        f"{axis.knob.field} without {axis.label(place)}"
        for axis, place in zip(axes, places, strict=True)
        if place or not axis.left_out
    ]
    return f"turn {' or '.join(turned)}" if turned else "change the other steps"
