"""Where a temperature can be put, what becomes of the configuration, and what is refused, word by word."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import CheckpointInfo, inspect
from app.models.knobs import lift
from app.models.steps import check_one, check_recipe
from app.models.steps.decode import CAPS
from app.recipes.recipe import Recipe
from tests.support.tiny import CONFIGS
from workers.distributions.head import KNOWN

Tiny = Callable[..., Path]
RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)
HALF: dict[str, Any] = {"type": "decode.temperature", "temperature": 0.5}


def check(info: CheckpointInfo, step: dict[str, Any]) -> list[str]:
    return [norm.name for norm in check_one(info, RECIPE.validate_python([step])[0], pointer="/r/0")]


@pytest.mark.parametrize("kind", CONFIGS)
def test_it_is_put_into_the_final_norm(tiny: Tiny, kind: str) -> None:
    assert check(inspect(tiny(kind)), HALF) == ["model.norm.weight"]


def test_a_soft_cap_is_divided_and_nothing_else_of_a_configuration(tiny: Tiny) -> None:
    def after(info: CheckpointInfo, temperature: float) -> dict[str, Any]:
        steps = RECIPE.validate_python([{"type": "decode.temperature", "temperature": temperature}])
        return check_recipe(info, steps, pointer="/r").config

    capped = inspect(tiny("gemma2"))
    assert capped.config["final_logit_softcapping"] == 30.0
    assert after(capped, 0.5) == capped.config | {"final_logit_softcapping": 60.0}
    assert after(capped, 1.0) == capped.config
    silent = replace(capped, config={k: v for k, v in capped.config.items() if k != "final_logit_softcapping"})
    assert after(silent, 2.0) == silent.config | {"final_logit_softcapping": 15.0}, "the class has one of 30"
    off = replace(capped, config=capped.config | {"final_logit_softcapping": None})
    assert after(off, 2.0) == off.config
    for kind in ("llama", "granite", "mixtral"):
        info = inspect(tiny(kind))
        assert after(info, 0.5) == info.config, kind


def test_the_caps_are_those_that_the_head_knows() -> None:
    known = {name: treatment.cap.default for name, treatment in KNOWN.items() if treatment.cap is not None}
    assert known == CAPS


def refused(info: CheckpointInfo, step: dict[str, Any]) -> tuple[ErrorCode, str, str, str]:
    with pytest.raises(HemostatError) as caught:
        check(info, step)
    error = caught.value
    return error.code, error.detail, error.hint, error.pointer


def test_what_cannot_be_done_is_refused_word_by_word(tiny: Tiny) -> None:
    llama = inspect(tiny("llama"))
    no = ErrorCode.RECIPE_NOT_APPLICABLE
    for field, value in (("layers", [0]), ("modules", ["norm"])):
        assert refused(llama, HALF | {field: value}) == (
            no,
            "a temperature is one of the whole distribution, which no part of the model has alone",
            f"leave {field} out",
            f"/r/0/{field}",
        )
    code, detail, hint, pointer = refused(replace(llama, architecture="OtherForCausalLM"), HALF)
    assert (code, pointer) == (no, "/r/0/type")
    assert detail == "what is between the final norm and the logits of a OtherForCausalLM is not known"
    assert hint.startswith("known are Gemma2ForCausalLM, ")
    without = {name: tensor for name, tensor in llama.tensors.items() if name != "model.norm.weight"}
    assert refused(replace(llama, tensors=without), HALF) == (
        no,
        "the checkpoint has no model.norm.weight in bf16, f16 or f32",
        "convert the checkpoint to bf16",
        "/r/0",
    )
    fixed: Recipe = RECIPE.validate_python([{"type": "quantize.activations", "bits": 8, "dynamic": False}, HALF])
    with pytest.raises(HemostatError, match="the grids of activations were fixed on text before this step"):
        check_recipe(llama, fixed, pointer="/r")


@pytest.mark.parametrize(
    ("temperature", "why"),
    [
        (0, "Input should be greater than or equal to 0.01"),
        (-1.0, "Input should be greater than or equal to 0.01"),
        (1e9, "Input should be less than or equal to 100"),
        (float("nan"), "Input should be a finite number"),
        (float("inf"), "Input should be a finite number"),
        ("hot", "Input should be a valid number, unable to parse string as a number"),
        (None, "Input should be a valid number"),
    ],
)
def test_a_temperature_that_is_none_is_refused(temperature: Any, why: str) -> None:
    with pytest.raises(ValidationError) as caught:
        RECIPE.validate_python([{"type": "decode.temperature", "temperature": temperature}])
    assert [(fault["loc"], fault["msg"]) for fault in caught.value.errors()] == [
        ((0, "decode.temperature", "temperature"), why)
    ]


def test_a_step_without_a_temperature_is_refused() -> None:
    with pytest.raises(ValidationError, match="Field required"):
        RECIPE.validate_python([{"type": "decode.temperature"}])


@pytest.mark.parametrize(
    ("values", "detail", "hint", "place"),
    [
        (
            [0, 0.5, 2],
            "temperature = 0 is not taken: input should be greater than or equal to 0.01",
            "leave 0 out, or give a value of temperature at least 0.01 and at most 100",
            0,
        ),
        (
            [0.5, 2, -1],
            "temperature = -1 is not taken: input should be greater than or equal to 0.01",
            "leave -1 out, or give a value of temperature at least 0.01 and at most 100",
            2,
        ),
        (
            [0.5, 2, 1e9],
            "temperature = 1e+09 is not taken: input should be less than or equal to 100",
            "leave 1e+09 out, or give a value of temperature at least 0.01 and at most 100",
            2,
        ),
        (
            [0.5, 2, float("nan")],
            "temperature = nan is not taken: input should be a finite number",
            "leave nan out, or give a value of temperature at least 0.01 and at most 100",
            2,
        ),
        ([0.5, 0.5], "temperature = 0.5 is given twice, as values 1 and 2 of 2", "give each value once", 1),
    ],
)
def test_values_of_a_sweep_are_refused_by_their_place(values: list[Any], detail: str, hint: str, place: int) -> None:
    step = {"type": "decode.temperature", "temperature": {"sweep": values}}
    with pytest.raises(HemostatError) as caught:
        lift({"kind": "sweep", "candidate": {"model": "m", "recipe": [step]}})
    error = caught.value
    assert (error.code, error.detail, error.hint) == (ErrorCode.INVALID_REQUEST, detail, hint)
    assert error.pointer == f"/candidate/recipe/0/temperature/sweep/{place}"


def test_a_knob_that_it_has_not_is_refused_with_the_one_that_it_has() -> None:
    step = {"type": "decode.temperature", "temperatur": {"sweep": [0.5, 2.0]}}
    with pytest.raises(HemostatError) as caught:
        lift({"kind": "sweep", "candidate": {"model": "m", "recipe": [step]}})
    assert (caught.value.code, caught.value.pointer) == (
        ErrorCode.UNKNOWN_FIELD,
        "/candidate/recipe/0/temperatur",
    )
    assert "temperature" in caught.value.detail
