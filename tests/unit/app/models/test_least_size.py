"""What a model takes at least after a recipe, and budgets below it."""

import pytest

from app.contracts.errors import ErrorCode, HemostatError
from app.kinds.mitigate.least_size import check_budget, least_bytes
from app.kinds.mitigate.request import Budget
from app.models.checkpoint import inspect
from app.recipes.base import Step
from app.recipes.lowrank import Truncated
from app.recipes.recipe import STEPS
from tests.support.checked import recipe
from tests.support.quantizing import text
from workers.surgery.recipe import apply
from workers.surgery.store import CheckpointStore

RTN = {"type": "quantize.rtn", "bits": 4, "group_size": 32}


@pytest.fixture
def info(tiny):
    return inspect(tiny())


def least(info, *steps):
    return least_bytes(info, recipe(*steps))


def made_bytes(info, store, *steps):
    with apply(
        info, recipe(*steps), device="cpu", store=CheckpointStore(store, 10**9), calibration=lambda _: text()
    ) as made:
        return made.manifest.model_nominal_bytes


def linear_bytes(info, *kinds):
    """Of the decoder's matrices, by their names alone."""
    return sum(
        tensor.bytes
        for name, tensor in info.tensors.items()
        if ".layers." in name and len(tensor.shape) == 2 and (not kinds or any(kind in name for kind in kinds))
    )


def test_without_a_recipe_it_is_what_the_files_hold(info):
    assert least(info) == sum(tensor.bytes for tensor in info.tensors.values())


def test_codes_alone_are_counted_of_what_a_step_quantizes(info):
    whole = least(info)
    assert least(info, RTN) == whole - linear_bytes(info) * 12 // 16
    assert least(info, RTN | {"modules": ["up_proj"]}) == whole - linear_bytes(info, "up_proj") * 12 // 16
    assert least(info, {"type": "quantize.fp8"}) == whole - linear_bytes(info) // 2
    mixed = {"type": "quantize.dynamic", "bits": 4.5, "mixed": True, "group_size": 32}
    assert least(info, mixed) == whole - linear_bytes(info) * 13 // 16
    assert least(info, RTN, RTN | {"bits": 8}) == least(info, RTN), "the second step may find nothing to do"


TEXT = {"calibration_windows": 4, "calibration_window": 32}


@pytest.mark.parametrize(
    ("steps", "near"),
    [
        ([RTN], 0.9),
        ([RTN | {"symmetric": True, "group_size": None}], 0.9),
        ([{"type": "quantize.nf4", "group_size": 32}], 0.9),
        ([{"type": "prune.magnitude", "sparsity": 0.5}, RTN], 0.9),
        ([{"type": "prune.layers", "layers": [1]}], 1),
        ([{"type": "prune.layers", "count": 1} | TEXT, RTN], 0.9),
        ([RTN | {"layers": [0]}, {"type": "prune.layers", "layers": [0]}], 0.3),
        ([{"type": "prune.channels", "ratio": 0.25} | TEXT], 1),
        ([{"type": "prune.heads", "ratio": 0.5} | TEXT, {"type": "lowrank.svd", "rank": 8}], 0.99),
        ([{"type": "lowrank.svd", "ratio": 0.3}, RTN], 0.9),
        ([RTN, {"type": "lowrank.svd", "ratio": 0.3}], 0.3),
        ([RTN, {"type": "extend.identity", "layers": [1]}], 0.8),
        ([{"type": "extend.width", "channels": 2}, RTN], 0.8),
        ([RTN, {"type": "repair.lowrank", "rank": 4, "block_epochs": 0, "distill_steps": 0} | TEXT], 0.7),
    ],
    ids=lambda steps: "+".join(step["type"] for step in steps) if isinstance(steps, list) else "",
)
def test_it_is_no_more_than_what_the_manifest_counts_and_not_far_below(tiny, tmp_path, steps, near):
    info = inspect(tiny("llama", num_attention_heads=4, num_key_value_heads=2))
    counted = made_bytes(info, tmp_path, *steps)
    assert near * counted <= least(info, *steps) <= counted


def test_each_quantizer_and_factorizer_says_how_few_bits_it_takes():
    """A budget must not be refused that a recipe keeps. The two exceptions change no stored weight."""
    known = {
        name for name, step in STEPS.items() if issubclass(step, Truncated) or step.code_bits is not Step.code_bits
    }
    by_role = {name for name, step in STEPS.items() if step.role in ("quantizer", "factorizer")}
    assert known - {"moe.router"} == by_role - {"quantize.activations", "quantize.kv_cache"}


def test_a_budget_below_that_is_refused_with_what_the_least_is():
    for budget, field, told in (
        ({"bytes": 900}, "bytes", ["900 bytes", "1,000 or more"]),
        ({"bits_per_weight": 3}, "bits_per_weight", ["3 bits per weight", "takes 4 or more"]),
        ({"bytes": 1000, "bits_per_weight": 3}, "bits_per_weight", ["3 bits per weight"]),
    ):
        with pytest.raises(HemostatError) as caught:
            check_budget(Budget(**budget), 1000, 2000, treatment="repair.lowrank rank=4")
        assert (caught.value.code, caught.value.pointer) == (ErrorCode.INVALID_REQUEST, f"/budget/{field}")
        assert all(word in caught.value.detail for word in [*told, "repair.lowrank rank=4"])
    for budget in ({}, {"bytes": 1000}, {"bytes": 985}, {"bits_per_weight": 4}, {"added_latency": 0}):
        check_budget(Budget(**budget), 1000, 2000)
