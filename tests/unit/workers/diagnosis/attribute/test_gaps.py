"""Gaps between models of another depth, as parts of a report."""

from types import SimpleNamespace

import pytest

from app.kinds.preflight import check_idle
from app.models.checkpoint import inspect
from app.models.steps import check_recipe, order_one
from tests.support import internals_blocks
from tests.support.pruning import operate
from workers.diagnosis.attribute.gaps import gap_sites, put_back
from workers.diagnosis.attribute.numbering import made_of
from workers.diagnosis.attribute.treatment import Untreated
from workers.measuring.subject import recipe_of
from workers.surgery.store import CheckpointStore

RTN = {"type": "quantize.rtn", "bits": 4, "group_size": 32}
NOTHING = {"nats": {"mean": 0.0, "ci": (0.0, 0.0)}, "share": None, "share_ci": None}
UNSURE = {"nats": {"mean": 0.2, "ci": (0.0, 0.5)}, "share": 0.4, "share_ci": (0.1, 0.9)}
TRIFLE = {"nats": {"mean": 1e-4, "ci": (5e-5, 2e-4)}, "share": 2e-4, "share_ci": (1e-4, 4e-4)}
SURE = {"nats": {"mean": 0.2, "ci": (0.1, 0.3)}, "share": 0.4, "share_ci": (0.2, 0.6)}
NO_INTERVAL = {"nats": {"mean": 0.2, "ci": None}, "share": 0.4, "share_ci": None}


@pytest.mark.parametrize(
    ("gone", "changes", "cause", "unclear", "why", "treatment"),
    [
        (False, NOTHING, "negligible", None, "its nats are 0; ", "it costs nothing"),
        (True, TRIFLE, "negligible", None, "0.02 % of the damage; ", "what it costs is negligible"),
        (True, UNSURE, "unclear", "no_damage_shown", "no damage is shown, ", "more text would tell"),
        (True, SURE, "removed", None, "found again in ", ({"type": "prune.layers", "layers": [1]}, RTN)),
        (False, SURE, "inserted", None, "found again in ", (RTN,)),
        (False, NO_INTERVAL, "inserted", None, "found again in ", (RTN,)),
    ],
)
def test_a_gap_that_costs_nothing_for_sure_has_the_cause_that_any_part_would_have(
    tiny, gone, changes, cause, unclear, why, treatment
):
    info = inspect(tiny("llama"))
    step = {"type": "prune.layers", "layers": [0, 1]} if gone else {"type": "extend.duplicate", "layers": [0]}
    layers = {"dropped": [0], "at_candidate": 0} if gone else {"dropped": [], "inserted": [1], "at_candidate": 2}
    recipe = recipe_of([step, RTN])
    gap = internals_blocks.alignment()["gaps"][0] | layers | changes
    found = SimpleNamespace(
        internals=internals_blocks.dense(alignment=internals_blocks.alignment() | {"gaps": [gap]}),
        patient=lambda: Untreated(info, recipe, info),
    )
    (made,) = gap_sites(found)
    assert (made.cause, made.unclear) == (cause, unclear)
    ci = changes["nats"]["ci"]
    assert made.shown is (None if ci is None else ci[0] > 0)
    assert made.why.startswith(why)
    assert made.why.endswith("found again in 100 % of resamplings of the documents")
    if isinstance(treatment, str):  # the end of why there is none
        assert made.treatment.recipe is None
        assert made.treatment.why.endswith(treatment)
    else:
        assert made.treatment.recipe == treatment


def test_a_gap_without_finite_logits_is_no_part(tiny):
    gaps = internals_blocks.alignment()["gaps"]
    block = internals_blocks.alignment() | {"gaps": [gaps[0] | {"nats": {"mean": None, "ci": None}}, gaps[1]]}
    info = inspect(tiny("llama"))
    found = SimpleNamespace(
        internals=internals_blocks.dense(alignment=block), patient=lambda: Untreated(info, (), info)
    )
    assert [site.name for site in gap_sites(found)] == ["added layer 4"]


ADAPTER = {"type": "adapter.lora", "adapter": "lora"}


def drop(*layers):
    return {"type": "prune.layers", "layers": list(layers)}


def extend(kind, *layers, **fields):
    return {"type": f"extend.{kind}", "layers": list(layers)} | fields


@pytest.fixture(scope="module")
def info(tiny):
    return inspect(tiny("llama", num_hidden_layers=6))


def patient(info, *steps, made=None):
    return Untreated(info, recipe_of(steps), info, made)


def layers_of(info, steps):
    """The layers of what a recipe makes, by their numbers in the checkpoint, after the checks of a submission."""
    recipe = recipe_of(steps)
    check_idle(recipe, pointer="")
    orders = [order_one(info, step) for step in recipe]
    found, *more = [order for order in orders if order != list(range(info.layers))] or [[*range(info.layers)]]
    assert not more and len(found) == check_recipe(info, recipe, pointer="").layers
    return found


COPIES = extend("duplicate", 1, 2, 3)  # 0 1 2 3 1 2 3 4 5
WIDE = {"type": "extend.interpolate", "weight": 0.25, "layers": [1, 3]}  # 0 1 new 2 3 new 4 5


@pytest.mark.parametrize(
    ("step", "dropped", "added", "left", "layers"),
    [
        (drop(1, 3, 4), [3, 4], [], drop(1), [0, 2, 3, 4, 5]),
        (drop(2), [2], [], None, [*range(6)]),
        # whichever copy is called the added one, and a part of it where a shorter run leaves the rest
        (COPIES, [], [4, 5, 6], None, [*range(6)]),
        (COPIES, [], [1, 2, 3], None, [*range(6)]),
        (COPIES, [], [2, 3, 4], None, [*range(6)]),
        (COPIES, [], [4], extend("duplicate", 2, 3), [0, 1, 2, 3, 2, 3, 4, 5]),
        (COPIES, [], [3], extend("duplicate", 1, 2), [0, 1, 2, 1, 2, 3, 4, 5]),
        (extend("identity", 1, 3), [], [2], extend("identity", 3), [0, 1, 2, 3, None, 4, 5]),
        (WIDE, [], [2], WIDE | {"layers": [3]}, [0, 1, 2, 3, None, 4, 5]),
        # inserted everywhere: the rest is named
        (
            {"type": "extend.interpolate"},
            [],
            [5],
            extend("interpolate", 0, 1, 3, 4),
            [0, None, 1, None, 2, 3, None, 4, None, 5],
        ),
        # chosen by the step itself, and known by what was made
        ({"type": "prune.layers", "count": 3, "seed": 3}, [3, 4], [], drop(1), [0, 2, 3, 4, 5]),
        ({"type": "prune.layers", "ratio": 0.5}, [3, 4], [], drop(1), [0, 2, 3, 4, 5]),
    ],
)
def test_layers_of_a_gap_are_put_back_or_left_out_and_the_rest_is_as_it_was(info, step, dropped, added, left, layers):
    made = (0, 2, 5) if {"count", "ratio"} & step.keys() else None
    before = added[-1] + 1 if added else 2
    found = put_back(patient(info, step, RTN, made=made), dropped, added, before=before)
    assert found.recipe == ((RTN,) if left is None else (left, RTN))
    assert layers_of(info, [*map(dict, found.recipe)]) == layers


def test_what_a_step_chose_by_itself_is_told_by_the_record_of_what_was_made(tiny, tmp_path):
    folder = tiny("llama", num_hidden_layers=6)
    info = inspect(folder)
    chosen, narrower = {"type": "prune.layers", "count": 2}, {"type": "prune.channels", "ratio": 0.25}
    steps = [chosen, narrower, RTN | {"form": "packed"}]
    with operate(folder, CheckpointStore(tmp_path, 10**9), *steps) as modified:
        figures = modified.manifest.steps[0].figures
        made = made_of(info, inspect(modified.path).tensors, modified.manifest.origins)
    gone = [layer for layer in range(6) if f"dropped_layer_{layer}" in figures]
    assert len(gone) == 2
    assert made == tuple(layer for layer in range(6) if layer not in gone)
    found = put_back(patient(info, *steps, made=made), gone[:1], [], before=gone[0])
    assert found.recipe == (drop(gone[1]), *steps[1:])
    assert layers_of(info, [*map(dict, found.recipe)]) == [layer for layer in range(6) if layer != gone[1]]


def test_later_steps_treat_the_same_layers_by_their_new_numbers(info):
    # 0 2 5: layer 2 of the candidate is the model's 5
    found = put_back(patient(info, drop(1, 3, 4), RTN | {"layers": [0, 2]}), [3, 4], [], before=2)
    assert found.recipe == (drop(1), RTN | {"layers": [0, 4]})
    # 0 1 2 1 2 3 4 5: of the two copies of the run the second one is rounded
    twice = patient(info, extend("duplicate", 1, 2), RTN | {"layers": [3, 4, 7]})
    assert put_back(twice, [], [1, 2], before=3).recipe == (RTN | {"layers": [1, 2, 5]},)
    assert put_back(twice, [], [3, 4], before=5).recipe == (RTN | {"layers": [5]},)
    only = patient(info, RTN, extend("identity", 1), RTN | {"bits": 8, "layers": [2]})
    assert put_back(only, [], [2], before=3).recipe == (RTN,)
    also = patient(info, extend("identity", 1), RTN | {"layers": [2, 3], "modules": ["mlp", "lm_head"]})
    assert put_back(also, [], [2], before=3).recipe == (RTN | {"layers": [2], "modules": ["mlp", "lm_head"]},)


@pytest.mark.parametrize(
    ("steps", "dropped", "added", "before", "why"),
    [
        ([drop(2)], [2], [], 2, "with layer 2 left in nothing is done"),
        ([drop(2, 3)], [3, 2], [], 2, "with layers 2, 3 left in nothing is done"),
        ([extend("identity", 2)], [], [3], 4, "with added layer 3 left out nothing is done"),
        ([{"type": "prune.layers", "count": 2}], [2], [], 2, "by itself"),
        ([drop(1)], [2], [], 2, "other layers"),
        ([extend("identity", 4)], [], [3], 4, "the step added other layers"),
        # the layer itself, not the one that was inserted behind it
        ([extend("interpolate", 2, 4)], [], [2], 3, "cannot leave exactly these layers out"),
        # 0 1 2 3 1 2 3 4 5 without the copy of 3: no run that stands twice leaves that
        ([extend("duplicate", 1, 2, 3)], [], [6], 7, "cannot leave exactly these layers out"),
        ([RTN], [2], [], 2, "no single step of the recipe dropped"),
        ([RTN], [], [2], 3, "no single step of the recipe added"),
        ([drop(1), drop(1)], [1], [], 1, "no single step"),
        ([drop(1), extend("duplicate", 3)], [], [4], 5, "no single step"),
        ([drop(1, 2), ADAPTER], [2], [], 1, "adapter.lora comes later"),
        ([drop(1, 2), RTN | {"modules": ["layers.1.mlp.up_proj"]}], [2], [], 1, "quantize.rtn comes later"),
        # its layer goes, the head stays
        *(
            ([extend("identity", 1), later | {"layers": [2]}, RTN], [], [2], 3, "for weights outside the layers")
            for later in (
                RTN | {"bits": 8, "modules": ["mlp", "lm_head"]},
                {"type": "norm.scale", "factor": 1.5, "modules": ["input_layernorm", "norm"]},
            )
        ),
    ],
)
def test_where_no_recipe_is_known_it_says_why(info, steps, dropped, added, before, why):
    found = put_back(patient(info, *steps), dropped, added, before=before)
    assert found.recipe is None
    assert why in found.why


def test_a_model_of_another_depth_than_the_references_numbers_its_layers_by_itself(tiny, info):
    shallow = inspect(tiny("llama", num_hidden_layers=5))
    found = put_back(Untreated(shallow, recipe_of([drop(1, 3)]), info), [3], [], before=2)
    assert (found.recipe, "other numbers" in found.why) == (None, True)
