"""Recipes that fit causes: each is accepted by the check that a submission goes through, and says what it should."""

import pytest

from app.models.checkpoint import inspect
from app.models.steps import check_one, check_recipe
from tests.unit.workers.diagnosis.attribute.swapped import HEADS
from workers.diagnosis.attribute.sites import sites_of
from workers.diagnosis.attribute.treatment import Untreated, treat
from workers.measuring.subject import recipe_of

RTN = {"type": "quantize.rtn", "bits": 4, "group_size": 32}
WANDA = {"type": "prune.wanda", "sparsity": 0.5}
GRADIENT = {"type": "prune.gradient", "sparsity": 0.5}
DYNAMIC = {"type": "quantize.dynamic", "bits": 4.0, "group_size": 32}


@pytest.fixture(scope="module")
def info(tiny):
    return inspect(tiny("llama", **HEADS))


def site(info, name):
    return next(site for site in sites_of(info) if site.name == name)


def weights(info, steps):
    """Tensor → the steps that address it, in order, by the recipe's own check."""
    check_recipe(info, recipe_of(steps), pointer="")
    found = {}
    for step, fields in zip(recipe_of(steps), steps, strict=True):
        for weight in check_one(info, step, pointer=""):
            found.setdefault(weight.name, []).append(fields)
    return found


def treated(info, recipe, name, cause):
    patient = Untreated(info, recipe_of(recipe), info)
    found = treat(patient, [(site(info, name), cause)])
    assert found.recipe is not None, found.why
    return weights(info, found.recipe)


@pytest.mark.parametrize(
    ("recipe", "cause", "kind", "fields"),
    [
        ([RTN], "size", "quantize.rtn", {"bits": 6}),
        ([RTN], "sheltered", "quantize.rtn", {"bits": 5}),
        ([RTN], "aligned", "quantize.gptq", {"bits": 4, "group_size": 32}),
        ([RTN], "outlier_channels", "quantize.awq", {"bits": 4, "group_size": 32}),
        ([WANDA], "size", "prune.wanda", {"sparsity": 0.25}),
        ([WANDA], "aligned", "prune.sparsegpt", {"sparsity": 0.5}),
        ([WANDA], "sheltered", "prune.wanda", {"sparsity": 0.375}),
        ([GRADIENT], "size", "prune.gradient", {"sparsity": 0.25}),
        ([DYNAMIC], "size", "quantize.dynamic", {"bits": 6}),
        ([DYNAMIC], "outlier_channels", "quantize.dynamic", {"bits": 6}),
    ],
)
@pytest.mark.parametrize("name", ["layers.1", "layers.1.mlp.down_proj", "layers.2.self_attn.heads.0"])
def test_the_part_gets_a_step_of_its_own_and_the_rest_stays(info, recipe, cause, kind, fields, name):
    before = weights(info, tuple(recipe))
    after = treated(info, recipe, name, cause)
    inside = set(site(info, name).tensors)
    assert after.keys() == before.keys()
    for tensor, steps in after.items():
        assert len(steps) == 1
        if tensor in inside:
            assert steps[0]["type"] == kind
            assert fields.items() <= steps[0].items()
        else:
            plain = {key: value for key, value in steps[0].items() if key not in {"layers", "modules"}}
            assert plain == recipe[0]


@pytest.mark.parametrize("cause", ["size", "aligned", "outlier_channels", "sheltered"])
@pytest.mark.parametrize(
    "step",
    [{"type": "quantize.nf4", "group_size": 32}, {"type": "lowrank.svd", "rank": 8}],
    ids=lambda step: step["type"],
)
def test_of_a_step_that_has_no_milder_form_here_the_part_is_left_out(info, step, cause):
    after = treated(info, [step], "layers.1.mlp.down_proj", cause)
    before = weights(info, (step,))
    assert before.keys() - after.keys() == {"model.layers.1.mlp.down_proj.weight"}


@pytest.mark.parametrize(
    ("recipe", "cause", "own", "rest"),
    [
        ([RTN], "removed", [], ["quantize.rtn"]),
        ([RTN], "low_rank", ["quantize.rtn", "repair.lowrank"], ["quantize.rtn"]),
        ([], "aligned", ["repair.lowrank"], []),  # damage that no step made
    ],
)
def test_what_was_removed_is_left_as_it_was_and_the_rest_is_repaired(info, recipe, cause, own, rest):
    after = treated(info, recipe, "layers.1.mlp.down_proj", cause)
    for name, types in (("down_proj", own), ("up_proj", rest)):
        assert [step["type"] for step in after.get(f"model.layers.1.mlp.{name}.weight", [])] == types


def test_a_norm_is_left_out_of_its_step_or_tweaked(info):
    after = treated(info, [{"type": "norm.scale", "factor": 1.2}], "layers.1.input_layernorm", "norm")
    assert "model.layers.1.input_layernorm.weight" not in after
    assert "model.layers.2.input_layernorm.weight" in after
    tweaked = treated(info, [RTN], "layers.1.input_layernorm", "norm")
    assert [step["type"] for step in tweaked["model.layers.1.input_layernorm.weight"]] == ["norm.tweak"]


def test_several_parts_are_treated_in_one_recipe(info):
    patient = Untreated(info, recipe_of([RTN]), info)
    found = treat(patient, [(site(info, "layers.0.mlp.up_proj"), "size"), (site(info, "layers.2"), "aligned")])
    assert found.recipe is not None, found.why
    after = weights(info, found.recipe)
    assert after["model.layers.0.mlp.up_proj.weight"][0]["bits"] == 6
    assert {after[name][0]["type"] for name in after if ".2." in name} == {"quantize.gptq"}
    assert after["model.layers.1.mlp.up_proj.weight"][0]["bits"] == 4


def test_a_part_whose_damage_is_not_shown_waits_for_more_text(info):
    patient = Untreated(info, recipe_of([RTN]), info)
    nothing = []
    mild = [(site(info, "layers.1"), "negligible")]
    for beside in (nothing, mild):
        found = treat(patient, beside, unshown=(359, 1))
        assert found.recipe is None
        assert "no damage is shown with 359 tokens of 1 document, more text would tell" in found.why
        assert "negligible" not in found.why
    assert treat(patient, [(site(info, "layers.1"), "size")], unshown=(359, 1)).recipe is not None


@pytest.mark.parametrize(
    ("recipe", "name", "cause", "why"),
    [
        ([RTN], "layers.1", "negligible", "nothing to treat"),
        ([{"type": "prune.layers", "layers": [2]}], "layers.1", "size", "renumbers the layers"),
        ([RTN], "lm_head", "size", "outside the layers"),
    ],
)
def test_where_there_is_none_it_says_why(info, recipe, name, cause, why):
    patient = Untreated(info, recipe_of(recipe), info)
    found = treat(patient, [(site(info, name), cause)])
    assert found.recipe is None
    assert why in found.why
