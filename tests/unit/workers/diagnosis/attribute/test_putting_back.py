"""A gap's treatment: a recipe that a submission takes, and that leaves in what is to stay."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.models.checkpoint import CheckpointInfo, inspect
from app.models.steps import check_recipe
from workers.diagnosis.attribute.putting_back import put_back
from workers.diagnosis.attribute.treatment import Patient
from workers.diagnosis.mitigate.subject import recipe_of

Json = dict[str, Any]
RTN: Json = {"type": "quantize.rtn", "bits": 4, "group_size": 32}


@pytest.fixture(scope="module")
def info(tiny: Callable[..., Path]) -> CheckpointInfo:
    return inspect(tiny("llama", num_hidden_layers=6))


def patient(info: CheckpointInfo, *steps: Json) -> Patient:
    return Patient(info, recipe_of(steps), info)


def test_layers_of_a_gap_stay_in_and_the_rest_is_as_it_was(info: CheckpointInfo) -> None:
    found = put_back(patient(info, {"type": "prune.layers", "layers": [1, 3, 4]}, RTN), [3, 4], [])
    assert found.recipe is not None, found.why
    assert [step["type"] for step in found.recipe] == ["prune.layers", "quantize.rtn"]
    assert found.recipe[0]["layers"] == [1]
    assert check_recipe(info, recipe_of(found.recipe), pointer="").layers == 5


def test_a_step_that_drops_nothing_more_goes(info: CheckpointInfo) -> None:
    found = put_back(patient(info, {"type": "prune.layers", "layers": [2]}, RTN), [2], [])
    assert found.recipe is not None, found.why
    assert [step["type"] for step in found.recipe] == ["quantize.rtn"]


@pytest.mark.parametrize(
    ("steps", "dropped", "added", "why"),
    [
        ([{"type": "prune.layers", "layers": [2]}], [2], [], "with layer 2 left in nothing is done"),
        ([{"type": "prune.layers", "layers": [2, 3]}], [3, 2], [], "with layers 2, 3 left in nothing is done"),
        ([{"type": "prune.layers", "count": 2}], [2], [], "by itself"),
        ([{"type": "prune.layers", "layers": [1]}], [2], [], "other layers"),
        ([RTN], [2], [], "no single step"),
        ([{"type": "prune.layers", "layers": [1]}, {"type": "prune.layers", "layers": [1]}], [1], [], "no single step"),
        ([{"type": "prune.layers", "layers": [1]}], [], [3], "inserted"),
    ],
)
def test_where_no_recipe_is_known_it_says_why(
    info: CheckpointInfo, steps: list[Json], dropped: list[int], added: list[int], why: str
) -> None:
    found = put_back(patient(info, *steps), dropped, added)
    assert found.recipe is None
    assert why in found.why
