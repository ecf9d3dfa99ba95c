"""What is kept of a recipe holds no text of its documents."""

from pydantic import TypeAdapter

from app.models.recipes import canonical_json, recipe_fingerprint
from app.recipes.recipe import Recipe

RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)


def recipe(text):
    documents = [{"id": "d", "text": text}]
    step = {"type": "quantize.gptq", "bits": 4, "calibration": {"source": "inline", "documents": documents}}
    return RECIPE.validate_python([step])


def test_documents_in_a_recipe_are_named_by_their_hash():
    assert "secret" not in canonical_json(recipe("a secret"))
    assert canonical_json(recipe("a secret")) == canonical_json(recipe("a secret"))
    assert recipe_fingerprint(recipe("a secret")) != recipe_fingerprint(recipe("another"))
