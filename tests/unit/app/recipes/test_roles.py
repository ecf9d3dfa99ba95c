"""What every type of step says of itself."""

from importlib.util import find_spec
from typing import get_args

from app.recipes.base import Role
from app.recipes.recipe import STEPS
from tests.support.steps import example


def test_every_type_has_a_role_and_names_code_that_is_there() -> None:
    for kind, step in STEPS.items():
        assert getattr(step, "role", None) in get_args(Role), f"{kind}: say what it does to a model"
        for runner in (step.runner, *step.variants.values()):
            assert find_spec(runner.partition(":")[0]), f"{kind}: {runner}"


def test_what_differs_from_layer_to_layer_is_a_field_and_what_replaces_a_step_is_a_step() -> None:
    for kind, step in STEPS.items():
        assert step.graded_by is None or step.graded_by in step.model_fields, kind
        assert step.replaced_by is None or step.replaced_by in STEPS, kind


def test_every_type_is_described_with_the_layers_that_it_is_done_to() -> None:
    for kind, step in STEPS.items():
        fields = example(kind)
        if kind == "prune.layers":
            del fields["count"]
        label = step.model_validate(fields | {"layers": [2, 3]}).label()
        assert "layers 2–3" in label
        assert kind not in label, f"{kind}: give it words of its own"
