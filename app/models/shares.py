"""Which share of a model a knob removes: the s of the robustness curve, from shapes alone.

- sparsity: the share of zeros, N:M is 1 - N/M.
- bits: 1 - bits/16, weights, activations, keys and values alike.
- rank: 1 - rank/full, full the smaller dimension, mean over the matrices that the step addresses.
- ratio: the share of parameters, heads or channels that goes, rounded as the step rounds it.
- layers, count: parts dropped of all that there are.

What is not zeros or bits is given by the family of the step (`share` in `app.models.steps`). Every other knob removes
no share, and has none."""

from __future__ import annotations

from typing import Final

from app.contracts.request import Knob
from app.models.checkpoint import CheckpointInfo
from app.models.knobs import recipe_at
from app.models.steps import check_recipe, share_one
from app.recipes.base import Sparse, Step
from app.recipes.recipe import Recipe

FULL_BITS: Final = 16
_BITS: Final = frozenset({"bits", "k_bits", "v_bits", "activation_bits"})
_WORDS: Final = {
    "sparsity": "s is the share of weights that become zero",
    "pattern": "s is the share of weights that become zero",
    "rank": "s is 1 − rank/full, the mean over the matrices that the step addresses",
    "ratio": "s is the share that goes",
    "layers": "s is the layers dropped over all layers",
    "count": "s is the parts dropped over all that there are",
} | dict.fromkeys(_BITS, "s is 1 − bits/16")


def share_of(info: CheckpointInfo, step: Step, field: str) -> float | None:
    """s of a step as it is, for the field that is turned; `info` is the checkpoint before the step."""
    if field in _BITS and step.role == "quantizer":
        value = getattr(step, field)
        return None if value is None else 1 - float(value) / FULL_BITS
    if isinstance(step, Sparse) and field in ("sparsity", "pattern"):
        return step.share
    return share_one(info, step, field)


def shares(info: CheckpointInfo, recipe: Recipe, knob: Knob) -> list[float] | None:
    """s of each value of a knob, in their order; None if the knob removes no share. `info` is the model before the
    recipe. Raises what `check_recipe` raises for a recipe that the model cannot take."""
    before = check_recipe(info, recipe[: knob.step], pointer="/candidate/recipe")
    found = [share_of(before, recipe_at(recipe, [knob], [value])[knob.step], knob.field) for value in knob.values]
    known = [share for share in found if share is not None]
    return known if len(known) == len(found) else None


def in_words(field: str) -> str:
    """How s follows from the field."""
    return _WORDS.get(field, "s is the share removed")
