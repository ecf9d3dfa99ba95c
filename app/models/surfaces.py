"""The settings of a surface: both knobs from left out to furthest, the recipe of each, and what refuses them.

A knob's zero is the recipe without its step. With both knobs in one step that would be the same recipe for both, so
there the zero of each is its first value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import ValidationError

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.recipe import Recipe
from app.contracts.requests.surface import MOST_POINTS, SurfaceRequest
from app.contracts.requests.sweep import Knob
from app.models.knobs import check_knobs, recipe_at, told, without

Order = Literal["as given", "reversed"]
Zero = Literal["left out", "first value"]
# Where a step that is left out stands on its knob's axis; the source's own bits are 16 in every dtype that is served
# but float32, whose weights an engine of bfloat16 takes as 16, too.
ZEROS: Final = {"sparsity": 0.0, "ratio": 0.0, "bits": 16.0, "activation_bits": 16.0, "k_bits": 16.0, "v_bits": 16.0}
# Fields that are stronger where they are smaller.
_FALLING: Final = frozenset({"rank"})


@dataclass(frozen=True)
class Axis:
    """A knob, its values from the mildest on (None where the step is left out), and where left out stands."""

    knob: Knob
    values: tuple[Any, ...]
    left_out: bool
    zero: float | None

    def number(self, place: int) -> float | None:
        """The value at a place as a number; None where it is none."""
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
    """Both knobs; values of fields whose zero is known from the nearest to it on, others as they were given."""
    one, other = (_axis(knob, left_out=zero_of(request) == "left out") for knob in request.knobs)
    return one, other


def _axis(knob: Knob, *, left_out: bool) -> Axis:
    zero = ZEROS.get(knob.field)
    values: list[Any] = list(knob.values)
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        if zero is not None:
            values.sort(key=lambda value: abs(value - zero))
        elif knob.field in _FALLING:
            values.sort(reverse=True)
    return Axis(knob, (None, *values) if left_out else tuple(values), left_out, zero)


def cells_of(request: SurfaceRequest) -> list[Cell]:
    """Every setting, each knob alone first; then the other order of the two steps where it is asked for."""
    axes = axes_of(request)
    places = [(p, q) for p in range(len(axes[0].values)) for q in range(len(axes[1].values))]
    places.sort(key=lambda place: (min(place) > 0, place))
    cells = [Cell(p, q, "as given", _recipe(request, axes, (p, q))) for p, q in places]
    if request.orders == "both":
        cells += [Cell(p, q, "reversed", _recipe(request, axes, (p, q), exchanged=True)) for p, q in places if p and q]
    return cells


def _recipe(
    request: SurfaceRequest, axes: Sequence[Axis], places: tuple[int, int], *, exchanged: bool = False
) -> Recipe:
    turned = [
        (axis.knob, axis.values[place]) for axis, place in zip(axes, places, strict=True) if place or not axis.left_out
    ]
    left_out = [axis.knob.step for axis, place in zip(axes, places, strict=True) if axis.left_out and not place]
    recipe = recipe_at(request.candidate.recipe, [knob for knob, _ in turned], [value for _, value in turned])
    if exchanged:
        steps = list(recipe)
        one, other = (axis.knob.step for axis in axes)
        steps[one], steps[other] = steps[other], steps[one]
        recipe = tuple(steps)
    return without(recipe, left_out)


def check_surface(request: SurfaceRequest, check: Callable[[Recipe], object]) -> None:
    """Refuses a surface that could not be measured: each knob alone, then every setting and order, by `check`, which
    raises `HemostatError` for a recipe that the checkpoint cannot take. The pointer is that of what to change."""
    one, other = request.knobs
    check_knobs(request.candidate.recipe, request.knobs, lambda recipe: None)
    if (one.step, one.field) == (other.step, other.field):
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"both knobs are {one.field} of step {one.step}",
            hint="turn two different fields; for one knob there is the kind sweep",
            pointer="/knobs/1",
        )
    if request.orders == "both" and one.step == other.step:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"both knobs are in step {one.step}: two steps are needed for another order",
            hint="leave orders out",
            pointer="/orders",
        )
    axes = axes_of(request)
    points = request.planned
    if points > MOST_POINTS:
        also = ", in both orders," if request.orders == "both" else ""
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"{len(axes[0].values)} × {len(axes[1].values)} settings{also} are {points} points; at most {MOST_POINTS} "
            "are taken",
            hint="give fewer values",
            pointer="/knobs",
        )
    check_knobs(request.candidate.recipe, request.knobs, check)
    for cell in _checked_cells(request):
        try:
            check(cell.recipe)
        except HemostatError as error:
            where = " with ".join(
                f"{axis.knob.field} {axis.label(place)}"
                for axis, place in zip(axes, (cell.first, cell.second), strict=True)
            )
            order = "" if cell.order == "as given" else ", steps exchanged"
            pointer = "/orders" if cell.order == "reversed" else "/knobs"
            raise HemostatError(
                error.code, f"at {where}{order}: {error.detail}", hint=error.hint, pointer=pointer
            ) from error


def _checked_cells(request: SurfaceRequest) -> list[Cell]:
    try:
        return cells_of(request)
    except ValidationError as error:
        why = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise HemostatError(
            ErrorCode.INVALID_REQUEST, f"the two knobs do not go together: {why}", pointer="/knobs"
        ) from None
