"""The order of a knob's values: every number of every step has a direction, and orders are those counted by hand."""

from dataclasses import replace
from typing import Annotated, Literal

import pytest
from pydantic import Field

from app.kinds.sweep.request import SweepRequest
from app.models.checkpoint import inspect
from app.models.knobs import lift
from app.models.strength import by_direction, direction_of, order_of
from app.recipes.base import Sparse
from app.recipes.recipe import STEPS
from app.recipes.strength import FALLING, RISING, around


@pytest.fixture(scope="module")
def info(tiny):
    return inspect(tiny("llama"))


def numbers(node):
    """Whether a field's JSON schema takes numbers that stand alone."""
    kinds = [branch for branch in (node, *node.get("anyOf", ())) if branch.get("type") in {"integer", "number"}]
    return bool(kinds) or any(isinstance(one, int) and not isinstance(one, bool) for one in node.get("enum", ()))


NUMERIC = [
    (kind, field)
    for kind, step in STEPS.items()
    for field, node in step.model_json_schema()["properties"].items()
    if numbers(node) or any(numbers(branch) for branch in node.get("anyOf", ()))
]


def test_every_number_of_every_step_has_a_direction_and_says_what_it_removes():
    """Annotate a field that fails: which way is it stronger?"""
    wrong = []
    for kind, field in NUMERIC:
        found = direction_of(kind, field)
        left_out = 0.0 if field in {"sparsity", "ratio"} else 16.0 if field.endswith("bits") else None
        # A smaller rank of a repair takes less back, a router of fewer bits is whole: nothing of the model is gone.
        removes = (left_out is not None or field == "rank") and kind not in {"repair.lowrank", "moe.router"}
        if found is None or (found.removes, found.left_out) != (removes, left_out):
            wrong.append((kind, field))
    assert wrong == []
    walked = {("quantize.activations", "bits"), ("prune.wanda", "sparsity"), ("moe.router", "temperature")}
    assert walked <= set(NUMERIC)
    none = {("quantize.rtn", "symmetric"), ("prune.wanda", "pattern"), ("prune.layers", "layers")}
    assert none.isdisjoint(NUMERIC)


@pytest.mark.parametrize(
    ("kind", "field", "values", "weakest_first"),
    [
        ("context.yarn", "factor", (4.0, 2.0, 8.0), (2.0, 4.0, 8.0)),
        ("quantize.rtn", "group_size", (64, None, 32), (32, 64, None)),
        ("moe.router", "bits", (2, 8, 4), (8, 4, 2)),
        ("quantize.dynamic", "activation_bits", (4, None, 8), (None, 8, 4)),
        ("repair.lowrank", "rank", (4, 16, 8), (16, 8, 4)),
        ("repair.lowrank", "distill_s", (60.0, None, 600.0), (None, 600.0, 60.0)),
        ("prune.gradient", "recovery_s", (0.0, 60.0), (60.0, 0.0)),
        ("quantize.awq", "calibration_windows", (8, 32), (32, 8)),
    ],
)
def test_one_way_numbers_stand_from_the_least_change_to_the_most(info, kind, field, values, weakest_first):
    found = by_direction(values, kind, field, info)
    assert tuple(values[place] for place in found.places) == weakest_first
    assert found.neutral is None


@pytest.mark.parametrize(
    ("kind", "field", "values", "neutral", "nearest_first"),
    [
        ("moe.router", "temperature", (0.5, 1.0, 1.5, 3.0), 1.0, (1.0, 1.5, 0.5, 3.0)),
        ("decode.temperature", "temperature", (2.0, 0.4, 1.25), 1.0, (1.25, 2.0, 0.4)),
        ("norm.scale", "factor", (-1.0, 0.5, 1.9), 1.0, (1.9, 0.5, -1.0)),
        ("norm.scale", "shift", (-0.1, 0.3, 0.05), 0.0, (0.05, -0.1, 0.3)),
        ("adapter.lora", "strength", (-1.0, 0.0, 0.5), 0.0, (0.0, 0.5, -1.0)),
        ("merge.linear", "weight", (-0.5, 0.25), 0.0, (0.25, -0.5)),
    ],
)
def test_values_on_both_sides_of_a_neutral_one_stand_by_their_distance_from_it(
    info, kind, field, values, neutral, nearest_first
):
    found = by_direction(values, kind, field, info)
    assert (found.kind, found.neutral) == ("around", neutral)
    assert tuple(values[place] for place in found.places) == nearest_first


def test_what_the_checkpoint_has_is_neutral(info, tiny):
    epsilon = replace(info, config=info.config | {"rms_norm_eps": 1e-5})
    found = by_direction((1e-7, 1e-5, 1e-4), "norm.epsilon", "epsilon", epsilon)
    assert found.neutral == 1e-5 and found.places == (1, 2, 0)
    plain = replace(info, config={name: value for name, value in info.config.items() if name != "rms_norm_eps"})
    assert by_direction((1e-5, 1e-4), "norm.epsilon", "epsilon", plain).neutral == 1e-6
    mixture = inspect(tiny("mixtral"))
    own = mixture.config["num_experts_per_tok"]
    found = by_direction((1, own, 4), "moe.topk", "experts", mixture)
    assert found.neutral == own and found.places[0] == 1
    assert by_direction((1, 2), "moe.topk", "experts", info).kind == "unknown", "no experts are known of"


class _MadeUp(Sparse):
    type: Literal["made.up"]
    mercy: Annotated[int, Field(ge=0), FALLING] | None = None
    twist: Annotated[float, Field(gt=0), RISING] = 1.0
    width: Annotated[int, Field(ge=1), around(configured="hidden_size", factor=True)]
    angle: Annotated[float, around(0.25)] = 0.25
    silent: int = 0


def test_what_a_new_step_says_of_its_fields_is_enough(info, monkeypatch):
    monkeypatch.setitem(STEPS, "made.up", _MadeUp)
    size = info.config["hidden_size"]

    def ordered(field, *values):
        found = by_direction(values, "made.up", field, info)
        return found.kind, found.neutral, [values[place] for place in found.places]

    assert ordered("mercy", 1, None, 8) == ("falling", None, [None, 8, 1])
    assert ordered("twist", 3.0, 2.0) == ("rising", None, [2.0, 3.0])
    assert ordered("sparsity", 0.5, 0.25) == ("rising", None, [0.25, 0.5]), "as in every step of its base"
    assert ordered("width", 4 * size, 1, size) == ("around", size, [size, 4 * size, 1])
    assert ordered("angle", 1.0, 0.0) == ("around", 0.25, [0.0, 1.0])
    assert ordered("silent", 2, 1) == ("unknown", None, [1, 2])


def swept(info, *steps):
    candidate = {"model": "m", "recipe": list(steps)}
    body = {"kind": "sweep", "reference": {"model": "m"}, "self_check": True, "candidate": candidate}
    request = SweepRequest.model_validate(lift(body))
    return *order_of(info, request.candidate.recipe, request.knobs[0]), request.knobs[0].values


def test_what_removes_the_same_share_has_no_order_but_that_of_numbers(info):
    for kind, field, listed, order, strongest_last in (
        ("magnitude", "pattern", ["2:4", "4:8", "1:4", "3:4"], "share", ["3:4", "2:4", "4:8", "1:4"]),
        ("magnitude", "pattern", ["2:4", "4:8"], "unknown", ["2:4", "4:8"]),
        ("layers", "layers", [[1], [0]], "unknown", [[1], [0]]),
        ("layers", "ratio", [0.6, 0.51, 0.01], "share", [0.01, 0.51, 0.6]),  # the same number of layers
    ):
        found, share, values = swept(info, {"type": f"prune.{kind}", field: {"sweep": listed}})
        assert found.kind == order
        assert len(set(share)) < len(share)
        assert [values[place] for place in found.places] == strongest_last
