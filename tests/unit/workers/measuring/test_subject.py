"""A step as data: in recipes that a job leaves, tries and reports."""

from typing import Any

import pytest

from workers.measuring.subject import fields_of, recipe_of

REPAIR = {"type": "repair.lowrank", "rank": 4}
DYNAMIC = {"type": "quantize.dynamic", "bits": 4.0}
# No field is as it is by default but `block_epochs`.
WHOLE_REPAIR = REPAIR | {"allocation": "uniform", "distill_steps": 9, "distill_s": 30.0, "iterations": 2}
WHOLE_DYNAMIC = DYNAMIC | {
    **{"group_size": 32, "symmetric": True, "activation_bits": 8, "mixed": True, "form": "packed"},
}


@pytest.mark.parametrize("epochs", [0, 1, 3])
@pytest.mark.parametrize("step", [REPAIR, DYNAMIC, WHOLE_REPAIR, WHOLE_DYNAMIC])
def test_what_is_left_out_of_a_step_is_read_as_it_was(step: dict[str, Any], epochs: int) -> None:
    given = recipe_of([step | {"block_epochs": epochs}])
    assert recipe_of(map(fields_of, given)) == given


def test_what_stands_at_its_default_is_left_out() -> None:
    assert [fields_of(one) for one in recipe_of([REPAIR, DYNAMIC | {"block_epochs": 3}])] == [REPAIR, DYNAMIC]
