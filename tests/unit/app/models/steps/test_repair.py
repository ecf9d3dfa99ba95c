from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import inspect
from app.models.steps import check_recipe
from app.recipes.recipe import Recipe

RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)
RTN = {"type": "quantize.rtn", "bits": 4, "group_size": 32}


def refusal(folder: Path, *steps: dict[str, Any]) -> HemostatError:
    with pytest.raises(HemostatError) as caught:
        check_recipe(inspect(folder), RECIPE.validate_python(steps), pointer="/candidate/recipe")
    return caught.value


def test_a_rank_that_a_module_has_no_room_for(tiny: Callable[..., Path]) -> None:
    error = refusal(tiny(), RTN, {"type": "repair.lowrank", "rank": 32})
    assert error.code == ErrorCode.RECIPE_NOT_APPLICABLE
    assert error.pointer == "/candidate/recipe/1/rank"
    assert "k_proj.weight [32, 64]" in error.detail
    assert "at most 31" in (error.hint or "")
    error = refusal(tiny(), RTN, {"type": "repair.lowrank", "rank": 5000})
    assert "k_proj.weight [32, 64]" in error.detail, "the one that says what is possible"
    check_recipe(
        inspect(tiny()),
        RECIPE.validate_python([{"type": "repair.lowrank", "rank": 32, "modules": ["mlp"]}]),
        pointer="",
    )


@pytest.mark.parametrize(("kind", "extra"), [("mixtral", {}), ("llama-untied", {"modules": ["lm_head"]})])
def test_models_and_modules_that_cannot_be_run_by_blocks(
    tiny: Callable[..., Path], kind: str, extra: dict[str, Any]
) -> None:
    error = refusal(tiny(kind), {"type": "repair.lowrank", "rank": 4} | extra)
    assert error.code == ErrorCode.RECIPE_NOT_APPLICABLE


@pytest.mark.parametrize(
    "before",
    [
        [],
        [{"type": "quantize.gptq", "bits": 4, "group_size": 32}],
        [{"type": "prune.magnitude", "sparsity": 0.5, "scope": "global"}],
        [{"type": "prune.magnitude", "sparsity": 0.5, "allocation": "owl"}],
        [{"type": "prune.magnitude", "pattern": "4:8", "allocation": "owl"}],
    ],
)
def test_iterations_need_steps_that_look_at_weights_alone(
    tiny: Callable[..., Path], before: list[dict[str, Any]]
) -> None:
    error = refusal(tiny(), *before, {"type": "repair.lowrank", "rank": 4, "iterations": 2})
    assert error.code == ErrorCode.RECIPE_NOT_APPLICABLE
    assert error.pointer == f"/candidate/recipe/{len(before)}/iterations"
    recipe = RECIPE.validate_python([RTN, {"type": "repair.lowrank", "rank": 4, "iterations": 2}])
    check_recipe(inspect(tiny()), recipe, pointer="")
