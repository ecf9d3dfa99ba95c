import pytest

from app.recipes.recipe import STEPS
from app.reports import describe
from tests.support.steps import example

# What an example of each type does not show.
OTHERS = [
    {"type": "quantize.gptq", "bits": 4, "symmetric": True, "form": "packed"},
    {"type": "quantize.smoothquant", "activation_bits": 4, "dynamic": False},
    {"type": "quantize.dynamic", "bits": 4.5, "mixed": True},
    {"type": "repair.lowrank", "rank": 4, "block_epochs": 0, "distill_steps": 0},
    {"type": "quantize.rtn", "bits": 3, "layers": [0, 1, 2, 7], "modules": ["down_proj"]},
    {"type": "prune.wanda", "sparsity": 0.5, "allocation": "owl"},
    {"type": "prune.gradient", "sparsity": None, "pattern": "2:4", "recovery_s": 600.0},
    {"type": "prune.layers", "layers": [3, 4]},
    {"type": "extend.identity"},
    {"type": "norm.scale", "factor": 0.5, "shift": -0.1},
    {"type": "some.thing", "rank": 64, "seed": 3, "other": None},
    {},
]


def test_a_step_in_words(snapshot):
    steps = [*(example(kind) for kind in STEPS), *OTHERS]
    snapshot("steps.txt", "\n".join(f"{one}: {describe.step(one)}" for one in steps))
    assert describe.step({"type": "lowrank.svd", "rank": 8, "layers": [1]}) == "SVD, rank 8 (only layer 1)"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([8, 6, 4, 3], "bits from 8 to 3 (4 values)"),
        ([4, 3, 8], "bits from 3 to 8 (3 values)"),
        ([4, 8, 3], "bits from 8 to 3 (3 values)"),
        (["2:4", "4:8"], "bits from 2:4 to 4:8 (2 values)"),
    ],
)
def test_a_knob_is_told_by_its_range_whatever_the_order_of_its_values(values, words):
    assert describe.step({"type": "quantize.rtn", "bits": {"sweep": values}}) == f"quantize.rtn with {words}"


def test_knobs_stand_where_a_request_writes_them():
    steps = [{"type": "prune.wanda", "sparsity": 0.2}, {"type": "quantize.rtn", "bits": 8}]
    knobs = [{"step": 1, "field": "bits", "values": (8, 4)}, {"step": 2, "field": "bits", "values": (1, 2)}]
    assert describe.with_knobs(steps, knobs) == [steps[0], {"type": "quantize.rtn", "bits": {"sweep": [8, 4]}}]
    assert steps[1]["bits"] == 8
    assert describe.with_knobs(steps, []) == steps


def test_steps_stand_in_the_order_in_which_they_were_applied():
    steps = [{"type": "prune.magnitude", "pattern": "2:4"}, {"type": "quantize.rtn", "bits": 4}]
    assert describe.recipe(steps) == "magnitude pruning 2:4, then 4-bit RTN, group 64, asymmetric"
    assert describe.recipe([]) == ""
