"""The cases of the bench cover every type of step."""

import torch
from pydantic import TypeAdapter

from app.recipes.recipe import STEPS, Recipe
from tests.bench.mitigation_cases import CASES
from workers.mitigation.gradient_pruning.score import fisher_diagonal
from workers.mitigation.gradient_pruning.step import GradientPruning
from workers.mitigation.gradients import LayerGradients
from workers.surgery.steps import runner_of

RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)


def test_every_type_of_step_has_a_case() -> None:
    """Without an exception: mixtures have a model of their own, adapters and merges take results of other recipes."""
    measured = {step["type"] for case in CASES.values() for step in case.recipe}
    assert [kind for kind in STEPS if kind not in measured] == []


def test_every_case_is_a_recipe_and_takes_what_another_one_leaves() -> None:
    for case in CASES.values():
        RECIPE.validate_python(case.recipe)
        taken = {step.get("adapter", step.get("other")) for step in case.recipe} - {None}
        assert taken == set(case.beside), case.name
        for recipe in case.beside.values():
            RECIPE.validate_python(recipe)


def test_a_case_is_held_against_one_of_the_same_model() -> None:
    for case in CASES.values():
        assert all(CASES[other].model == case.model for other in case.against), case.name


def test_a_step_on_the_mixture_is_one_of_a_mixture_or_stands_beside_them() -> None:
    of_mixtures = {step["type"] for case in CASES.values() if case.model == "mixture" for step in case.recipe}
    assert {"moe.topk", "moe.router"} <= of_mixtures
    demo = {step["type"] for case in CASES.values() if case.model == "demo" for step in case.recipe}
    assert not {kind for kind in demo if kind.startswith("moe.")}


def test_an_ablation_leaves_out_the_gradients_alone() -> None:
    """The same recipe under another key: every output channel counts alike, by what it is given."""
    plain, without = CASES["gradient_50_uniform"], CASES["gradient_50_uniform_by_inputs"]
    assert plain.recipe == without.recipe
    assert plain.mark != without.mark
    assert without.name in plain.against
    assert without.ablation is not None
    step = without.ablation.model_validate(without.recipe[0])
    runner = runner_of(step)
    assert issubclass(runner, GradientPruning)
    assert runner.version != GradientPruning.version
    of = LayerGradients(torch.rand(3, 2), torch.rand(3), None, torch.tensor([4.0, 9.0]))
    assert runner(step).importance(of).tolist() == [[4.0, 9.0]] * 3
    assert GradientPruning(step).importance(of).tolist() == fisher_diagonal(of).tolist()
