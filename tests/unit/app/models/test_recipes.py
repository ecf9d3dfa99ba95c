import pytest
from pydantic import TypeAdapter

from app.models.recipes import canonical_json, recipe_fingerprint
from app.recipes.recipe import Recipe

RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)


def recipe(*steps):
    return RECIPE.validate_python(steps)


RTN = {"type": "quantize.rtn", "bits": 4}


def test_ways_of_writing_the_same_recipe_have_one_form():
    one = recipe(RTN | {"layers": [2, 0, 2], "modules": ["up_proj", "mlp"]})
    other = recipe(RTN | {"layers": [0, 2], "modules": ["mlp", "up_proj"], "group_size": 64, "symmetric": False})
    assert canonical_json(one) == canonical_json(other)
    assert recipe_fingerprint(one) == recipe_fingerprint(other)


@pytest.mark.parametrize(
    "changes", [{"bits": 3}, {"group_size": None}, {"symmetric": True}, {"layers": [0]}, {"modules": ["mlp"]}]
)
def test_every_field_counts(changes):
    assert recipe_fingerprint(recipe(RTN)) != recipe_fingerprint(recipe(RTN | changes))


def test_the_order_of_steps_counts():
    prune = {"type": "prune.magnitude", "sparsity": 0.5}
    assert recipe_fingerprint(recipe(RTN, prune)) != recipe_fingerprint(recipe(prune, RTN))


def test_the_canonical_form_is_a_recipe_again():
    one = recipe(RTN, {"type": "prune.magnitude", "pattern": "2:4", "layers": [1]})
    assert RECIPE.validate_json(canonical_json(one)) == one


def test_the_empty_recipe_has_no_fingerprint():
    assert recipe_fingerprint(()) is None
    assert canonical_json(()) == "[]"


def test_fields_of_the_text_count_where_it_is_read():
    plain = {"type": "prune.magnitude", "sparsity": 0.5}
    assert recipe_fingerprint(recipe(plain | {"seed": 3})) == recipe_fingerprint(recipe(plain))
    owl = plain | {"allocation": "owl"}
    assert recipe_fingerprint(recipe(owl | {"seed": 3})) != recipe_fingerprint(recipe(owl))
