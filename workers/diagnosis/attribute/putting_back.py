"""The treatment of a gap: the layers whose loss costs most stay in, by a recipe on the candidate's alias."""

from __future__ import annotations

from collections.abc import Collection

from pydantic import ValidationError

from app.contracts.attribute_report import Treatment
from app.contracts.errors import HemostatError
from app.models.steps import check_recipe
from workers.diagnosis.attribute.treatment import Patient
from workers.diagnosis.mitigate.subject import Subject, fields_of, recipe_of, told, type_of


def put_back(patient: Patient, dropped: Collection[int], added: Collection[int]) -> Treatment:
    """`dropped`: layers of the reference, `added`: layers of the candidate, of one gap. The step that dropped layers by
    their numbers drops these no more; of anything else `why` says why there is no recipe."""
    if added or not dropped:
        return Treatment(
            recipe=None, why="inserted layers are mended by inserting fewer, or others: no step undoes one"
        )
    steps = [fields_of(step) for step in patient.recipe]
    which = [index for index, step in enumerate(patient.recipe) if type_of(step) == "prune.layers"]
    alone = [Subject(patient.origin, (step,), 0).renumbered for step in patient.recipe].count(True) == 1
    if len(which) != 1 or not alone or patient.origin.layers != patient.reference.layers:
        return Treatment(recipe=None, why="no single step of the recipe dropped these layers")
    named = patient.recipe[which[0]].layers
    if named is None or not set(dropped) <= set(named):
        why = "the step chose its layers by itself: name others" if named is None else "the step dropped other layers"
        return Treatment(recipe=None, why=why)
    left = sorted(set(named) - set(dropped))
    place = slice(which[0], which[0] + 1)
    steps[place] = [steps[which[0]] | {"layers": left}] if left else []
    words = f"layer{'' if len(dropped) == 1 else 's'} {', '.join(map(str, sorted(dropped)))}"
    if not steps:
        return Treatment(recipe=None, why=f"with {words} left in nothing is done to the model")
    try:
        recipe = recipe_of(steps)
        check_recipe(patient.origin, recipe, pointer="", reference=patient.reference)
    except (HemostatError, ValidationError) as error:
        why = error.detail if isinstance(error, HemostatError) else "the steps cannot be written so"
        return Treatment(recipe=None, why=f"{words} left in: refused, {why}")
    return Treatment(recipe=told(recipe), why=f"{words} left in")
