"""Fields that decide nothing beside another one of their step."""

from typing import Any

import pytest
from pydantic import TypeAdapter

from app.contracts.errors import ErrorCode, HemostatError
from app.kinds.preflight import check_idle
from app.recipes.base import Calibrated
from app.recipes.recipe import STEPS, Recipe

RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)
OTHER_TEXT = {"source": "shipped", "corpus": "calibration", "documents": 4}
PATTERN, HALF = {"pattern": "2:4"}, {"sparsity": 0.5}


def refused(*steps, turned=None):
    with pytest.raises(HemostatError) as caught:
        check_idle(RECIPE.validate_python(steps), pointer="/r", turned=turned)
    assert caught.value.code is ErrorCode.RECIPE_NOT_APPLICABLE
    return caught.value


@pytest.mark.parametrize(
    ("step", "field"),
    [
        ({"type": "prune.magnitude", "scope": "row"} | PATTERN, "scope"),
        ({"type": "prune.magnitude", "scope": "global"} | PATTERN, "scope"),
        ({"type": "prune.sparsegpt", "scope": "row"} | PATTERN, "scope"),
        ({"type": "prune.wanda", "owl_range": 0.1} | HALF, "owl_range"),
        ({"type": "prune.ria", "owl_threshold": 3.0} | PATTERN, "owl_threshold"),
        ({"type": "prune.wanda", "allocation": "owl", "pattern": "4:8", "scope": "layer"}, "scope"),
        ({"type": "prune.magnitude", "calibration": OTHER_TEXT} | HALF, "calibration"),
        ({"type": "prune.layers", "layers": [1], "calibration_windows": 8}, "calibration_windows"),
        (
            {"type": "quantize.fp8", "form": "packed", "activations": "dynamic", "calibration_window": 64},
            "calibration_window",
        ),
        ({"type": "quantize.activations", "bits": 8, "calibration": OTHER_TEXT}, "calibration"),
        ({"type": "quantize.kv_cache", "dtype": "fp8", "group_size": 16}, "group_size"),
        ({"type": "prune.gradient", "reconstruct": False, "reconstruct_epochs": 3} | HALF, "reconstruct_epochs"),
        ({"type": "repair.lowrank", "rank": 4, "distill_steps": 0, "distill_s": 30.0}, "distill_s"),
    ],
)
def test_a_field_that_decides_nothing_is_refused_where_it_stands(step, field):
    error = refused({"type": "quantize.rtn", "bits": 4}, step)
    assert error.pointer == f"/r/1/{field}"
    assert error.detail.startswith(f"{field} has no effect here: ")
    assert error.hint is not None
    assert error.hint.startswith(f"leave {field} out, or ")


@pytest.mark.parametrize(
    "step",
    [
        {"type": "prune.magnitude", "scope": "global"} | HALF,
        {"type": "prune.magnitude", "allocation": "owl", "owl_range": 0.1, "calibration": OTHER_TEXT} | HALF,
        {"type": "prune.wanda", "scope": "row", "calibration": OTHER_TEXT} | PATTERN,
        {"type": "prune.ria", "allocation": "owl", "pattern": "4:8", "owl_range": 0.063, "owl_threshold": 3.0},
        {"type": "prune.magnitude", "allocation": "owl", "owl_range": 0.1251, "calibration": OTHER_TEXT} | PATTERN,
        {"type": "prune.layers", "count": 1, "calibration_windows": 8},
        {"type": "quantize.fp8", "form": "packed", "activations": "static", "calibration": OTHER_TEXT},
        {"type": "quantize.activations", "bits": 8, "dynamic": False, "calibration_windows": 8},
        {"type": "quantize.kv_cache", "k_bits": 8, "group_size": 16, "symmetric": True},
        {"type": "prune.gradient", "reconstruct_epochs": 3} | HALF,
    ],
)
def test_where_it_decides_something_it_is_taken(step):
    check_idle(RECIPE.validate_python([step]), pointer="/r")


def test_a_default_that_is_written_out_is_not_taken_to_be_asked_for():
    """As stored recipes have it, which hold every field."""
    steps = RECIPE.validate_python(
        [
            {"type": "prune.magnitude", "scope": "layer"} | PATTERN,
            {"type": "prune.wanda"} | HALF,
            {"type": "quantize.kv_cache", "dtype": "fp8"},
            {"type": "quantize.activations", "bits": 8},
        ]
    )
    written = RECIPE.validate_json(RECIPE.dump_json(steps))
    assert all(one.model_fields_set == set(type(one).model_fields) for one in written)
    check_idle(written, pointer="/r")


def test_beside_a_knob_a_field_counts_where_the_knob_makes_it_count():
    wanda = {"type": "prune.wanda", "owl_range": 0.1} | HALF
    check_idle(RECIPE.validate_python([wanda]), pointer="/r", turned={0: {"allocation"}})
    assert refused(wanda, turned={0: {"sparsity"}}).pointer == "/r/0/owl_range"
    plain = {"type": "prune.wanda"} | HALF
    assert refused(plain, turned={0: {"owl_range"}}).pointer == "/r/0/owl_range", "every point would be the same"


def test_every_step_that_may_leave_its_text_unread_says_so_of_its_text():
    """A type whose contract decides when the text is read has a line here, too."""
    decides = {kind for kind, step in STEPS.items() if issubclass(step, Calibrated) and "reads_text" in vars(step)}
    assert decides == {"prune.magnitude", "prune.layers", "quantize.fp8", "quantize.activations"}
    unread: list[dict[str, Any]] = [
        {"type": "prune.magnitude"} | HALF,
        {"type": "prune.layers", "layers": [0]},
        {"type": "quantize.fp8"},
        {"type": "quantize.activations", "bits": 8},
    ]
    for step in RECIPE.validate_python(unread):
        assert any("calibration" in fields for fields, _, _, _ in step.idle())
