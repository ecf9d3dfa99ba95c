"""Which rank a share of parameters leaves."""

from fractions import Fraction

import pytest
from pydantic import TypeAdapter

from app.models.steps.lowrank import rank_of
from app.recipes.lowrank import Truncated
from app.recipes.recipe import Recipe

RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)


@pytest.mark.parametrize("shape", [(2560, 2560), (5120, 5120), (576, 1536), (49152, 576)])
@pytest.mark.parametrize("ratio", ["0.1", "0.2", "0.3", "0.7", "0.8", "0.9", "0.95"])
def test_a_share_leaves_the_rank_of_the_formula_to_the_last_one(shape, ratio):
    """⌊(1 − ratio) · O·I / (O + I)⌋ in whole numbers: 1 − 0.9 in binary lacks a rank where the formula is even."""
    (step,) = RECIPE.validate_python([{"type": "lowrank.svd", "ratio": float(ratio)}])
    assert isinstance(step, Truncated)
    share = 1 - Fraction(ratio)
    wanted = (share.numerator * shape[0] * shape[1]) // (share.denominator * (shape[0] + shape[1]))
    assert rank_of(step, shape) == wanted
