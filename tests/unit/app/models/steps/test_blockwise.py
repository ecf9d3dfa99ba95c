"""What a step that runs models block by block demands of the reference, before anything is read."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import inspect
from app.models.steps import check_recipe
from app.recipes.recipe import Recipe

Tiny = Callable[..., Path]
RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)
WOUND = {"type": "quantize.rtn", "bits": 4, "group_size": 32}
TUNED = {"type": "quantize.dynamic", "bits": 4, "group_size": 32, "tuning_steps": 1}
BESIDE = [{"type": "repair.lowrank", "rank": 4}, {"type": "norm.tweak"}, TUNED]


@pytest.mark.parametrize("step", BESIDE, ids=lambda step: step["type"])
def test_a_packed_reference_is_refused_where_the_step_runs_it(tiny: Tiny, step: dict[str, Any]) -> None:
    info = inspect(tiny())
    packed = replace(info, quantization={"quant_method": "compressed-tensors"}, scheme="w4a16")
    recipe = RECIPE.validate_python([WOUND, step])
    with pytest.raises(HemostatError, match=r"the reference is packed \(w4a16\)") as caught:
        check_recipe(info, recipe, pointer="/r", reference=packed)
    assert (caught.value.code, caught.value.pointer) == (ErrorCode.RECIPE_NOT_APPLICABLE, "/r/1")
    assert caught.value.hint
    check_recipe(info, recipe, pointer="/r", reference=info)


def test_a_reference_that_the_step_does_not_run_may_be_packed(tiny: Tiny) -> None:
    info = inspect(tiny())
    packed = replace(info, quantization={"quant_method": "compressed-tensors"}, scheme="w4a16")
    recipe = RECIPE.validate_python([TUNED | {"tuning_steps": 0}, {"type": "prune.gradient", "sparsity": 0.5}])
    check_recipe(info, recipe, pointer="/r", reference=packed)


def test_a_mixture_is_no_reference_for_norms_of_a_dense_model(tiny: Tiny) -> None:
    recipe = RECIPE.validate_python([{"type": "norm.tweak"}])
    with pytest.raises(HemostatError, match="the reference is a MixtralForCausalLM"):
        check_recipe(inspect(tiny()), recipe, pointer="/r", reference=inspect(tiny("mixtral")))
