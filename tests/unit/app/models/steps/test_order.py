"""Which layer is which after a step: told where the step is declared, so that nothing else knows steps by name."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from pydantic import TypeAdapter

import app.models.steps
from app.models.checkpoint import inspect
from app.models.steps import after_one, order_one, renumbering
from app.recipes.recipe import STEPS, Recipe
from tests.support.steps import example

RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)
RENUMBERING = {"prune.layers", "extend.duplicate", "extend.identity", "extend.interpolate"}


def recipe(*steps):
    return RECIPE.validate_python(steps)


@pytest.fixture(scope="module")
def info(tiny):
    return inspect(tiny("llama", num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=2))


@pytest.mark.parametrize("type_", STEPS)
def test_steps_that_change_the_depth_number_layers_anew_and_no_others(tiny, info, type_):
    info = inspect(tiny("mixtral")) if type_.startswith("moe.") else info
    (step,) = found = recipe(example(type_))
    assert renumbering(info, found) == ((0,) if type_ in RENUMBERING else ())
    order = order_one(info, step)
    assert (order is None) == (type_ == "prune.layers")
    assert order is None or len(order) == after_one(info, step).layers


@pytest.mark.parametrize(
    ("step", "order"),
    [
        ({"type": "prune.layers", "layers": [1, 4]}, [0, 2, 3, 5]),
        ({"type": "extend.duplicate", "layers": [2, 1]}, [0, 1, 2, 1, 2, 3, 4, 5]),
        ({"type": "extend.identity", "layers": [0, 5]}, [0, None, 1, 2, 3, 4, 5, None]),
        ({"type": "extend.interpolate"}, [0, None, 1, None, 2, None, 3, None, 4, None, 5]),
    ],
)
def test_the_order_is_told_layer_by_layer(info, step, order):
    assert order_one(info, recipe(step)[0]) == order


def test_each_step_is_judged_by_what_it_finds(info):
    rounded = {"type": "quantize.rtn", "bits": 4}
    # as deep as before, and still numbered anew twice
    drop, copy = {"type": "prune.layers", "layers": [1]}, {"type": "extend.duplicate", "layers": [3]}
    assert renumbering(info, recipe(rounded, drop, rounded, copy)) == (1, 3)


@pytest.mark.parametrize(
    "rules",
    [
        SimpleNamespace(after=lambda info, step: replace(info, layers=info.layers - 1)),
        SimpleNamespace(order=lambda info, step: [1, 0, *range(2, info.layers)]),
    ],
    ids=["another depth, no order told", "layers exchanged"],
)
def test_a_new_family_needs_nothing_but_its_own_rules(info, monkeypatch, rules):
    monkeypatch.setattr(app.models.steps, "_rules", lambda step: rules)
    assert renumbering(info, recipe({"type": "quantize.rtn", "bits": 4})) == (0,)
