"""Gaps between models of another depth, as parts of a report."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.kinds.attribute.report import Cause, Treatment, Unclear
from app.kinds.preflight import check_idle
from app.models.checkpoint import CheckpointInfo, inspect
from app.models.steps import check_recipe, order_one
from tests.support import internals_blocks
from tests.support.pruning import operate
from workers.diagnosis.attribute.found import Found
from workers.diagnosis.attribute.gaps import gap_sites, put_back
from workers.diagnosis.attribute.numbering import made_of
from workers.diagnosis.attribute.treatment import Untreated
from workers.measuring.subject import recipe_of
from workers.surgery.store import CheckpointStore


@pytest.mark.parametrize(
    ("ci", "shown"),
    [((0.154, 0.443), True), ((0.0, 0.443), False), (None, None)],
    ids=["sure", "unsure", "no interval"],
)
def test_a_gap_is_shown_by_the_interval_of_its_nats(
    tiny: Callable[..., Path], ci: tuple[float, float] | None, shown: bool | None
) -> None:
    info = inspect(tiny("llama"))
    recipe = recipe_of([{"type": "prune.layers", "layers": [0, 1]}])
    gap = internals_blocks.alignment()["gaps"][0] | {
        "at_reference": 1,
        "at_candidate": 0,
        "layers": [{"kind": "dropped", "layer": 0, "of": None, "distance": None, "added": 0.3}],
        "nats": {"mean": 0.226, "ci": ci},
    }
    block = internals_blocks.alignment() | {"gaps": [gap]}
    found = SimpleNamespace(
        not_swapped="the models have 3 and 1 layers",
        internals=internals_blocks.dense(alignment=block),
        patient=lambda: Untreated(info, recipe, info),
    )
    (made,) = gap_sites(cast("Found", found))
    assert made.shown is shown
    assert (made.cause, made.unclear) == (("unclear", "no_damage_shown") if shown is False else ("removed", None))
    assert made.treatment is not None
    if shown is False:
        assert "no damage is shown with 768 tokens of 12 documents" in made.treatment.why
    else:
        assert made.treatment.recipe is not None


RTN: dict[str, Any] = {"type": "quantize.rtn", "bits": 4, "group_size": 32}
DROPPED = {"kind": "dropped", "layer": 0, "of": None, "distance": None, "added": 0.3}
IDENTITY = {"kind": "identity", "layer": 1, "of": 0, "distance": 1.4, "added": 0.0}
COPY = {"kind": "duplicate", "layer": 1, "of": 0, "distance": 0.0, "added": 0.3}
NOTHING = {"nats": {"mean": 0.0, "ci": (0.0, 0.0)}, "share": None, "share_ci": None}
UNSURE = {"nats": {"mean": 0.2, "ci": (0.0, 0.5)}, "share": 0.4, "share_ci": (0.1, 0.9)}
TRIFLE = {"nats": {"mean": 1e-4, "ci": (5e-5, 2e-4)}, "share": 2e-4, "share_ci": (1e-4, 4e-4)}
SURE = {"nats": {"mean": 0.2, "ci": (0.1, 0.3)}, "share": 0.4, "share_ci": (0.2, 0.6)}
NO_INTERVAL = {"nats": {"mean": 0.2, "ci": None}, "share": 0.4, "share_ci": None}


@pytest.mark.parametrize(
    ("layers", "changes", "cause", "unclear", "why", "treatment"),
    [
        ([IDENTITY], NOTHING, "negligible", None, "identity; its nats are 0; ", "it costs nothing"),
        ([DROPPED], NOTHING, "negligible", None, "dropped; its nats are 0; ", "it costs nothing"),
        ([DROPPED], TRIFLE, "negligible", None, "dropped; 0.02 % of the damage; ", "what it costs is negligible"),
        ([DROPPED], UNSURE, "unclear", "no_damage_shown", "dropped; no damage is shown, ", "more text would tell"),
        ([COPY], UNSURE, "unclear", "no_damage_shown", "duplicate; no damage is shown, ", "more text would tell"),
        ([DROPPED], SURE, "removed", None, "dropped; found again in ", ({"type": "prune.layers", "layers": [1]}, RTN)),
        ([COPY], SURE, "inserted", None, "duplicate; found again in ", (RTN,)),
        ([DROPPED, COPY], SURE, "removed", None, "dropped and duplicate; found again in ", "dropped other layers"),
        ([COPY], NO_INTERVAL, "inserted", None, "duplicate; found again in ", (RTN,)),
    ],
)
def test_a_gap_that_costs_nothing_for_sure_has_the_cause_that_any_part_would_have(
    tiny: Callable[..., Path],
    layers: list[dict[str, Any]],
    changes: dict[str, Any],
    cause: Cause,
    unclear: Unclear | None,
    why: str,
    treatment: tuple[dict[str, Any], ...] | str,
) -> None:
    """`treatment`: its recipe, or the end of why there is none."""
    info = inspect(tiny("llama"))
    step, before = (
        ({"type": "prune.layers", "layers": [0, 1]}, 0)
        if DROPPED in layers
        else ({"type": "extend.duplicate", "layers": [0]}, 2)
    )
    recipe = recipe_of([step, RTN])
    gap = internals_blocks.alignment()["gaps"][0] | {"at_candidate": before, "layers": layers} | changes
    found = SimpleNamespace(
        internals=internals_blocks.dense(alignment=internals_blocks.alignment() | {"gaps": [gap]}),
        patient=lambda: Untreated(info, recipe, info),
    )
    (made,) = gap_sites(cast("Found", found))
    assert (made.cause, made.unclear) == (cause, unclear)
    assert made.why.startswith(why)
    assert made.why.endswith("found again in 100 % of resamplings of the documents")
    assert made.treatment is not None
    if isinstance(treatment, str):
        assert made.treatment.recipe is None
        assert made.treatment.why.endswith(treatment)
    else:
        assert made.treatment.recipe == treatment


def test_a_gap_without_finite_logits_is_no_part(tiny: Callable[..., Path]) -> None:
    gaps = internals_blocks.alignment()["gaps"]
    block = internals_blocks.alignment() | {"gaps": [gaps[0] | {"nats": {"mean": None, "ci": None}}, gaps[1]]}
    info = inspect(tiny("llama"))
    found = SimpleNamespace(
        internals=internals_blocks.dense(alignment=block), patient=lambda: Untreated(info, (), info)
    )
    assert [site.name for site in gap_sites(cast("Found", found))] == ["added layer 4"]


Json = dict[str, Any]
Tiny = Callable[..., Path]
ADAPTER: Json = {"type": "adapter.lora", "adapter": "lora"}


def drop(*layers: int) -> Json:
    return {"type": "prune.layers", "layers": list(layers)}


def extend(kind: str, *layers: int, **fields: Any) -> Json:
    return {"type": f"extend.{kind}", "layers": list(layers)} | fields


@pytest.fixture(scope="module")
def info(tiny: Tiny) -> CheckpointInfo:
    return inspect(tiny("llama", num_hidden_layers=6))


def patient(info: CheckpointInfo, *steps: Json, made: tuple[int | None, ...] | None = None) -> Untreated:
    return Untreated(info, recipe_of(steps), info, made)


def layers_of(info: CheckpointInfo, steps: list[Json]) -> list[int | None]:
    """The layers of what a recipe makes, by their numbers in the checkpoint, after the checks of a submission."""
    recipe = recipe_of(steps)
    check_idle(recipe, pointer="")
    depth = check_recipe(info, recipe, pointer="").layers
    orders = [order_one(info, step) for step in recipe]
    moving = [order for order in orders if order != list(range(info.layers))]
    assert len(moving) <= 1
    found: list[int | None] | None = moving[0] if moving else [*range(info.layers)]
    assert found is not None and len(found) == depth
    return found


def lacks_the_gap(info: CheckpointInfo, found: Treatment, layers: list[int | None]) -> bool:
    assert found.recipe is not None, found.why
    return layers_of(info, [dict(step) for step in found.recipe]) == layers


def test_layers_of_a_gap_stay_in_and_the_rest_is_as_it_was(info: CheckpointInfo) -> None:
    found = put_back(patient(info, drop(1, 3, 4), RTN), [3, 4], [], before=2)
    assert found.recipe == (drop(1), RTN)
    assert found.why == "layers 3, 4 left in"
    assert lacks_the_gap(info, found, [0, 2, 3, 4, 5])


def test_a_step_that_drops_nothing_more_goes(info: CheckpointInfo) -> None:
    found = put_back(patient(info, drop(2), RTN), [2], [], before=2)
    assert found.recipe == (RTN,)
    assert lacks_the_gap(info, found, [*range(6)])


# 0 1 2 3 1 2 3 4 5: whichever copy is called the added one, and a part of it where a shorter run leaves the rest.
@pytest.mark.parametrize(
    ("added", "left", "layers"),
    [
        ([4, 5, 6], None, [0, 1, 2, 3, 4, 5]),
        ([1, 2, 3], None, [0, 1, 2, 3, 4, 5]),
        ([2, 3, 4], None, [0, 1, 2, 3, 4, 5]),
        ([4], [2, 3], [0, 1, 2, 3, 2, 3, 4, 5]),
        ([3], [1, 2], [0, 1, 2, 1, 2, 3, 4, 5]),
    ],
)
def test_duplicated_layers_are_left_out(
    info: CheckpointInfo, added: list[int], left: list[int] | None, layers: list[int | None]
) -> None:
    found = put_back(patient(info, extend("duplicate", 1, 2, 3), RTN), [], added, before=added[-1] + 1)
    assert found.recipe == ((RTN,) if left is None else (extend("duplicate", *left), RTN))
    assert found.why == f"added layer{'s' * (len(added) > 1)} {', '.join(map(str, added))} left out"
    assert lacks_the_gap(info, found, layers)


@pytest.mark.parametrize("fields", [{"type": "extend.identity"}, {"type": "extend.interpolate", "weight": 0.25}])
def test_inserted_layers_are_left_out_and_the_others_stay(info: CheckpointInfo, fields: Json) -> None:
    one = patient(info, fields | {"layers": [1, 3]}, RTN)  # 0 1 new 2 3 new 4 5
    found = put_back(one, [], [2], before=3)
    assert found.recipe == (fields | {"layers": [3]}, RTN)
    assert lacks_the_gap(info, found, [0, 1, 2, 3, None, 4, 5])


def test_of_layers_inserted_everywhere_the_rest_is_named(info: CheckpointInfo) -> None:
    found = put_back(patient(info, {"type": "extend.interpolate"}), [], [5], before=6)
    assert found.recipe == (extend("interpolate", 0, 1, 3, 4),)
    assert lacks_the_gap(info, found, [0, None, 1, None, 2, 3, None, 4, None, 5])


@pytest.mark.parametrize("many", [{"count": 3, "calibration_windows": 8, "seed": 3}, {"ratio": 0.5}])
def test_layers_that_a_step_chose_by_itself_are_named_but_for_those_of_the_gap(
    info: CheckpointInfo, many: Json
) -> None:
    one = patient(info, {"type": "prune.layers"} | many, RTN, made=(0, 2, 5))
    found = put_back(one, [3, 4], [], before=2)
    assert found.recipe == (drop(1), RTN)
    assert lacks_the_gap(info, found, [0, 2, 3, 4, 5])


def test_what_a_step_chose_by_itself_is_told_by_the_record_of_what_was_made(tiny: Tiny, tmp_path: Path) -> None:
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
    assert lacks_the_gap(info, found, [layer for layer in range(6) if layer != gone[1]])


def test_later_steps_treat_the_same_layers_by_their_new_numbers(info: CheckpointInfo) -> None:
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
def test_where_no_recipe_is_known_it_says_why(
    info: CheckpointInfo, steps: list[Json], dropped: list[int], added: list[int], before: int, why: str
) -> None:
    found = put_back(patient(info, *steps), dropped, added, before=before)
    assert found.recipe is None
    assert why in found.why


def test_a_model_of_another_depth_than_the_references_numbers_its_layers_by_itself(
    tiny: Tiny, info: CheckpointInfo
) -> None:
    shallow = inspect(tiny("llama", num_hidden_layers=5))
    found = put_back(Untreated(shallow, recipe_of([drop(1, 3)]), info), [3], [], before=2)
    assert (found.recipe, "other numbers" in found.why) == (None, True)
