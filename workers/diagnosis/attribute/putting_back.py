"""The treatment of a gap, as a recipe on the candidate's alias: the step that dropped its layers drops these no more,
or the one that added them adds these no more, and everything else is done as it was.

It is told only where it is certain: one step of the recipe numbers the layers anew, the layers of the gap are layers
that it dropped or added, and the step with the remaining ones leaves exactly the candidate's layers without the gap.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from pydantic import ValidationError

from app.contracts.errors import HemostatError
from app.kinds.attribute.report import Treatment
from app.models.checkpoint import CheckpointInfo
from app.models.modules import Weight, weights_of
from app.models.steps import after_one, check_recipe, order_one, renumbering
from app.models.steps.norm import norms_of
from app.models.steps.others import takes_other
from app.recipes.base import Step
from workers.diagnosis.attribute.naming import listed
from workers.diagnosis.attribute.treatment import Patient
from workers.measuring.subject import fields_of, recipe_of, told

Fields = dict[str, Any]
# Of each layer after a step the one that it was before; None for a new one.
Order = Sequence[int | None]


class _NoRecipeError(Exception):
    """Why there is no recipe."""


def put_back(patient: Patient, dropped: Collection[int], added: Collection[int], *, before: int) -> Treatment:
    """`dropped`: layers of the reference, `added`: layers of the candidate, of one gap; it stands before layer `before`
    of the candidate. Where there is no recipe `why` says why."""
    words = " and ".join(
        ([f"{listed(sorted(dropped))} left in"] if dropped else [])
        + ([f"added {listed(sorted(added))} left out"] if added else [])
    )
    try:
        steps = _without(patient, sorted(dropped), sorted(added), before)
    except _NoRecipeError as error:
        return Treatment(recipe=None, why=str(error))
    if not steps:
        return Treatment(recipe=None, why=f"with {words} nothing is done to the model")
    try:
        recipe = recipe_of(steps)
        check_recipe(patient.origin, recipe, pointer="", reference=patient.reference)
    except (HemostatError, ValidationError) as error:
        why = error.detail if isinstance(error, HemostatError) else "the steps cannot be written so"
        return Treatment(recipe=None, why=f"{words}: refused, {why}")
    return Treatment(recipe=told(recipe), why=words)


def _without(patient: Patient, dropped: list[int], added: list[int], before: int) -> list[Fields]:
    """The steps without what made the gap. Raises _NoRecipeError."""
    done = "dropped" if dropped else "added"
    which = renumbering(patient.origin, patient.recipe)
    if len(which) != 1:
        raise _NoRecipeError(f"no single step of the recipe {done} these layers")
    if dropped and patient.origin.layers != patient.reference.layers:
        raise _NoRecipeError("the layers of the candidate's model have other numbers than the reference's")
    place = which[0]
    step, later = patient.recipe[place], patient.recipe[place + 1 :]
    info = patient.origin
    for one in patient.recipe[:place]:
        info = after_one(info, one)
    order = order_one(info, step)
    by_itself = order is None
    if order is None:
        # no other step moves a layer, so that the candidate's are those that this one left
        order = None if patient.made_of is None else list(patient.made_of)
    if order is None or len(order) != after_one(info, step).layers:
        raise _NoRecipeError("the step chose its layers by itself, and which is not known: name others")
    concerned = {*dropped, *(_old(order, layer) for layer in added)}
    if not concerned <= _acted_on(order, info.layers) or any(layer in order for layer in dropped):
        raise _NoRecipeError(f"the step {done} other layers")
    start = before - len(added)
    wanted: list[int | None] = [*order[:start], *dropped, *order[before:]]
    left = sorted(_acted_on(order, info.layers) - concerned)
    remaining = _remaining(step, left, by_itself=by_itself)
    if wanted != _order_after(info, remaining):
        way = "in" if dropped else "out"
        raise _NoRecipeError(f"{step.type} cannot be told to leave exactly these layers {way}")
    places: list[int | None] = [*range(start), *[None] * len(dropped), *range(before, len(order))]
    renumbered = {layer: number for number, layer in enumerate(places) if layer is not None}
    outside = [weight for weight in (*weights_of(info), *norms_of(info)) if weight.layer is None]
    return [
        *(fields_of(one) for one in patient.recipe[:place]),
        *remaining,
        *(fields for one in later for fields in _moved(one, renumbered, outside)),
    ]


def _old(order: Order, layer: int) -> int:
    """The old layer that one is, or, of a new one, that it stands behind; −1 for one before all."""
    return next((old for old in reversed(order[: layer + 1]) if old is not None), -1)


def _acted_on(order: Order, layers: int) -> set[int]:
    """The old layers that a step dropped, doubled, or put a new one behind."""
    counts = [order.count(layer) for layer in range(layers)]
    new = {_old(order, layer) for layer, old in enumerate(order) if old is None}
    return {layer for layer, count in enumerate(counts) if count != 1} | new


def _remaining(step: Step, layers: list[int], *, by_itself: bool) -> list[Fields]:
    """The step for these layers alone, none where there are none. One that chose layers by itself is told them, and
    reads no text for it."""
    if not layers:
        return []
    fields = fields_of(step)
    return [({"type": fields["type"]} if by_itself else fields) | {"layers": layers}]


def _order_after(info: CheckpointInfo, steps: list[Fields]) -> Order | None:
    """What the layers are after no step or one; None where that cannot be told, or the step not be written so."""
    if not steps:
        return list(range(info.layers))
    try:
        (step,) = recipe_of(steps)
        check_recipe(info, (step,), pointer="")
    except (HemostatError, ValidationError):
        return None
    return order_one(info, step)


def _moved(step: Step, renumbered: dict[int, int], outside: Sequence[Weight]) -> list[Fields]:
    """A later step for the same layers, by the numbers that these have now; none where all that it was for is gone.
    Raises _NoRecipeError where it knows layers by more than their numbers in `layers`, and where its layers are gone
    but not what it names `outside` of them: no step can name both no layer and the same modules."""
    by_number = any(part.isdigit() for module in step.modules or () for part in module.split("."))
    if takes_other(step) or by_number:
        raise _NoRecipeError(f"{step.type} comes later and fits the layers as the candidate numbers them")
    fields = fields_of(step)
    if step.layers is None:
        return [fields]
    layers = [renumbered[layer] for layer in step.layers if layer in renumbered]
    if layers:
        return [fields | {"layers": layers}]
    if any(weight.answers_to(kind) for weight in outside for kind in step.modules or ()):
        raise _NoRecipeError(f"{step.type} comes later for these layers and for weights outside the layers")
    return []
