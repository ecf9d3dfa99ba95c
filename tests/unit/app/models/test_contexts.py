"""Which windows are refused, with what would do."""

import pytest
from pydantic import TypeAdapter

from app.contracts.errors import ErrorCode, HemostatError
from app.kinds.compare.request import CompareRequest
from app.kinds.mitigate.request import MitigateRequest
from app.kinds.sweep.request import SweepRequest
from app.models.checkpoint import inspect
from app.models.contexts import check_calibration_window, check_window
from app.models.steps import check_recipe
from app.recipes.recipe import Recipe

YARN = {"type": "context.yarn", "factor": 2}


@pytest.fixture(scope="module")
def folder(tiny):
    return tiny("llama")


def check(folder, window, recipe, kind=CompareRequest):
    request = kind.model_validate(
        {
            "kind": "compare" if kind is CompareRequest else "mitigate",
            "reference": {"model": "a"},
            "self_check": True,
            "candidate": {"model": "a", "recipe": recipe},
            "window": window,
        }
    )
    info = inspect(folder)
    check_window(request, info, info, check_recipe(info, request.candidate.recipe, pointer="/candidate/recipe"))


@pytest.mark.parametrize(
    ("window", "recipe"),
    [(256, []), (257, [YARN]), (512, [YARN]), (512, [{"type": "context.linear", "factor": 4}]), (64, [YARN])],
)
def test_what_both_can_read_or_the_candidate_alone(folder, window, recipe):
    check(folder, window, recipe)


@pytest.mark.parametrize(
    ("window", "recipe", "limit", "hint"),
    [
        (257, [], 256, "at most 256, or extend the candidate by a step such as context.yarn to 1.01 or more"),
        (1000, [], 256, "3.91 or more"),
        (513, [YARN], 512, "at most 512, or raise the factor of the context step to 2.01 or more"),
        (300, [{"type": "quantize.rtn", "bits": 4, "group_size": 32}], 256, "context.yarn"),
    ],
)
def test_what_nobody_can_read(folder, window, recipe, limit, hint):
    with pytest.raises(HemostatError) as caught:
        check(folder, window, recipe)
    assert (caught.value.code, caught.value.pointer) == (ErrorCode.WINDOW_TOO_LARGE, "/window")
    assert f"context of {limit} tokens" in caught.value.detail
    assert hint in caught.value.hint


@pytest.mark.parametrize(("window", "taken"), [(512, True), (513, False)])
def test_a_sweep_may_read_as_far_as_each_of_its_settings(folder, window, taken):
    request = SweepRequest.model_validate(
        {
            "kind": "sweep",
            "reference": {"model": "a"},
            "candidate": {"model": "a", "recipe": [YARN]},
            "knobs": [{"step": 0, "field": "factor", "values": [2, 4]}],
            "window": window,
        }
    )
    info = inspect(folder)
    after = check_recipe(info, request.candidate.recipe, pointer="/candidate/recipe")
    if taken:
        check_window(request, info, info, after)
        return
    with pytest.raises(HemostatError) as caught:
        check_window(request, info, info, after)
    assert "raise the factor of the context step to 2.01 or more" in caught.value.hint


def test_other_kinds_need_a_reference_that_reads_all(folder):
    with pytest.raises(HemostatError) as caught:
        check(folder, 512, [YARN], MitigateRequest)
    assert caught.value.code is ErrorCode.WINDOW_TOO_LARGE
    assert "at most 256" in caught.value.hint


AWQ: dict[str, object] = {"type": "quantize.awq", "bits": 4, "group_size": 32}
FIXED: dict[str, object] = {"type": "quantize.activations", "bits": 8, "calibration_window": 300}


@pytest.mark.parametrize(
    ("recipe", "at"),
    [
        ([AWQ], 0),  # 512 by default
        ([AWQ | {"calibration_window": 257}], 0),
        ([AWQ | {"calibration_window": 256}, YARN, AWQ | {"calibration_window": 513}], 2),
        ([FIXED | {"dynamic": False}], 0),
    ],
)
def test_calibration_windows_beyond_the_context_at_that_step_are_refused(folder, recipe, at):
    with pytest.raises(HemostatError) as caught:
        check_calibration_windows(folder, recipe)
    assert caught.value.code is ErrorCode.WINDOW_TOO_LARGE
    assert caught.value.pointer == f"/candidate/recipe/{at}/calibration_window"
    assert f"at most {512 if at == 2 else 256}," in caught.value.hint


@pytest.mark.parametrize(
    "recipe", [[AWQ | {"calibration_window": 256}], [YARN, AWQ | {"calibration_window": 512}], [FIXED]]
)
def test_calibration_windows_within_the_context_or_of_no_text_are_not(folder, recipe):
    check_calibration_windows(folder, recipe)


def check_calibration_windows(folder, recipe):
    steps = TypeAdapter(Recipe).validate_python(recipe)
    check_recipe(inspect(folder), steps, pointer="/candidate/recipe", beside=check_calibration_window)
