import json
from typing import Any

import pytest
from pydantic import TypeAdapter

from app.contracts.recipe import Recipe
from app.models.recipes import canonical_json, recipe_fingerprint

RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)


def recipe(*steps: dict[str, Any]) -> Recipe:
    return RECIPE.validate_python(steps)


RTN = {"type": "quantize.rtn", "bits": 4}


def test_ways_of_writing_the_same_recipe_have_one_form() -> None:
    one = recipe(RTN | {"layers": [2, 0, 2], "modules": ["up_proj", "mlp"]})
    other = recipe(RTN | {"layers": [0, 2], "modules": ["mlp", "up_proj"], "group_size": 64, "symmetric": False})
    assert canonical_json(one) == canonical_json(other)
    assert recipe_fingerprint(one) == recipe_fingerprint(other)


@pytest.mark.parametrize(
    "changes", [{"bits": 3}, {"group_size": None}, {"symmetric": True}, {"layers": [0]}, {"modules": ["mlp"]}]
)
def test_every_field_counts(changes: dict[str, Any]) -> None:
    assert recipe_fingerprint(recipe(RTN)) != recipe_fingerprint(recipe(RTN | changes))


def test_the_order_of_steps_counts() -> None:
    prune = {"type": "prune.magnitude", "sparsity": 0.5}
    assert recipe_fingerprint(recipe(RTN, prune)) != recipe_fingerprint(recipe(prune, RTN))


def test_the_canonical_form_is_a_recipe_again() -> None:
    one = recipe(RTN, {"type": "prune.magnitude", "pattern": "2:4", "layers": [1]})
    assert RECIPE.validate_json(canonical_json(one)) == one


def test_the_empty_recipe_has_no_fingerprint() -> None:
    assert recipe_fingerprint(()) is None
    assert canonical_json(()) == "[]"


def test_magnitude_pruning_has_the_name_that_it_had_before_it_knew_owl() -> None:
    plain = {"type": "prune.magnitude", "sparsity": 0.5}
    assert canonical_json(recipe(plain)) == (
        '[{"layers":null,"modules":null,"pattern":null,"scope":"layer","sparsity":0.5,"type":"prune.magnitude"}]'
    )
    assert recipe_fingerprint(recipe(plain | {"seed": 3})) == recipe_fingerprint(recipe(plain))
    owl = plain | {"allocation": "owl"}
    assert recipe_fingerprint(recipe(owl | {"seed": 3})) != recipe_fingerprint(recipe(owl))


def test_a_repair_without_text_of_its_own_has_the_name_that_it_had_before_it_knew_any() -> None:
    repair = {"type": "repair.lowrank", "rank": 4}
    assert "own_windows" not in canonical_json(recipe(RTN, repair))
    assert recipe_fingerprint(recipe(RTN, repair)) == recipe_fingerprint(recipe(RTN, {**repair, "own_windows": 0}))
    assert '"own_windows":8' in canonical_json(recipe(RTN, {**repair, "own_windows": 8}))


def test_dynamic_scaling_that_fits_no_blocks_has_the_name_that_it_had_before_it_could() -> None:
    """As it was stored then, with all of its fields."""
    stored = {
        **{"type": "quantize.dynamic", "layers": None, "modules": None, "bits": 4.0, "group_size": 64},
        **{"symmetric": False, "activation_bits": None, "mixed": False, "smooth": True, "tune": "rounding"},
        **{"tuning_steps": 0, "form": "simulated", "calibration_windows": 32, "calibration_window": 512, "seed": 0},
        "calibration": {"source": "shipped", "corpus": "calibration", "documents": None},
    }
    assert json.loads(canonical_json(recipe(stored))) == [stored], "today's default is another"
    assert json.loads(canonical_json(RECIPE.validate_json(json.dumps([stored])))) == [stored]
    assert recipe_fingerprint(recipe(stored)) == recipe_fingerprint(recipe({**stored, "block_epochs": 0}))
    assert recipe_fingerprint(recipe(stored)) != recipe_fingerprint(recipe({**stored, "block_epochs": 1}))


@pytest.mark.parametrize(
    ("step", "name"),
    [
        ({"type": "prune.magnitude", "pattern": "2:4", "seed": 5, "calibration_windows": 8}, "df203bcf594536c1"),
        (
            {"type": "prune.magnitude", "sparsity": 0.5, "scope": "row", "owl_range": 0.1, "layers": [2, 0]},
            "cc99b100f6f26769",
        ),
        ({"type": "prune.magnitude", "sparsity": 0.5, "allocation": "owl"}, "4d0084c4235f5747"),
        ({"type": "quantize.dynamic", "bits": 4, "block_epochs": 0}, "6d0193d9ec538956"),
        ({"type": "quantize.dynamic", "bits": 4}, "f9f4708ff9485de1"),
        ({"type": "quantize.dynamic", "bits": 4, "block_epochs": 1}, "9490c0c71c66c65c"),
        ({"type": "repair.lowrank", "rank": 4}, "51c1c34bd82e283b"),
        ({"type": "repair.lowrank", "rank": 4, "own_windows": 8}, "4c07d600aff3b16c"),
    ],
)
def test_types_that_got_fields_later_have_the_names_that_stores_and_dashboards_know(
    step: dict[str, Any], name: str
) -> None:
    assert (recipe_fingerprint(recipe(step)) or "").startswith(name)
