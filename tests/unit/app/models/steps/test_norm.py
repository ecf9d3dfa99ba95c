"""Which norms a step means, and what is refused from shapes and configuration."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import CheckpointInfo, inspect
from app.models.steps import check_one, check_recipe
from app.models.steps.norm import EPSILON, norms_of
from app.models.strength import direction_of
from app.recipes.recipe import Recipe

Tiny = Callable[..., Path]
RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)


def check(info: CheckpointInfo, step: dict[str, Any]) -> list[str]:
    return [norm.module for norm in check_one(info, RECIPE.validate_python([step])[0], pointer="/r/0")]


@pytest.mark.parametrize(("kind", "count"), [("llama", 2), ("qwen2", 2), ("gemma2", 4), ("mixtral", 2)])
def test_every_norm_is_known_in_the_models_order(tiny: Tiny, kind: str, count: int) -> None:
    norms = norms_of(inspect(tiny(kind)))
    assert len(norms) == 3 * count + 1
    assert [norm.layer for norm in norms] == [layer for layer in range(3) for _ in range(count)] + [None]
    assert norms[-1].module == "model.norm"


def test_kinds_are_names_and_dotted_ends(tiny: Tiny) -> None:
    info = inspect(tiny("llama"))
    assert check(info, {"type": "norm.drop", "modules": ["1.input_layernorm"]}) == ["model.layers.1.input_layernorm"]
    assert check(info, {"type": "norm.drop", "modules": ["norm"], "layers": [0]}) == ["model.norm"]
    assert "model.norm" not in check(info, {"type": "norm.drop", "layers": [0]})
    assert "model.norm" in check(info, {"type": "norm.drop"})
    assert "model.norm" not in check(info, {"type": "norm.tweak"})


def test_the_checkpoint_will_have_the_epsilon(tiny: Tiny) -> None:
    info = inspect(tiny("llama"))
    steps = RECIPE.validate_python([{"type": "norm.epsilon", "epsilon": 0.25}])
    assert check_recipe(info, steps, pointer="/r").config["rms_norm_eps"] == 0.25


def test_the_epsilon_that_is_neutral_is_read_where_the_step_writes_it() -> None:
    direction = direction_of("norm.epsilon", "epsilon")
    assert direction is not None and direction.configured == EPSILON


def refused(info: CheckpointInfo, step: dict[str, Any]) -> tuple[ErrorCode, str]:
    with pytest.raises(HemostatError) as caught:
        check(info, step)
    assert caught.value.hint
    return caught.value.code, caught.value.pointer


def test_what_means_nothing_is_refused(tiny: Tiny) -> None:
    llama = inspect(tiny("llama"))
    unknown = {name: value for name, value in llama.config.items() if name != "rms_norm_eps"}
    other = replace(llama, config=unknown, architecture="OtherForCausalLM")
    packed = replace(llama, quantization={"quant_method": "compressed-tensors"}, scheme="w4a16")
    not_applicable = ErrorCode.RECIPE_NOT_APPLICABLE
    assert refused(other, {"type": "norm.epsilon", "epsilon": 1}) == (not_applicable, "/r/0")
    assert refused(packed, {"type": "norm.drop"}) == (not_applicable, "/r")
    assert refused(inspect(tiny("mixtral")), {"type": "norm.tweak"}) == (not_applicable, "/r/0")
    assert refused(llama, {"type": "norm.drop", "modules": ["input_norm"]}) == (
        ErrorCode.UNKNOWN_MODULE,
        "/r/0/modules/0",
    )
    assert refused(replace(llama, tensors={}), {"type": "norm.drop"}) == (not_applicable, "/r/0")
