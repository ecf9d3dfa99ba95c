"""Recipes of several stages: what each leaves, what is shared, what is refused before any work."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import fingerprint, inspect
from app.recipes.base import Calibrated
from app.recipes.lowrank import LowrankSvdllm
from app.recipes.recipe import Recipe
from workers.surgery.calibration_text import CalibrationText
from workers.surgery.modified import Modified
from workers.surgery.quantize_rtn import quantize
from workers.surgery.recipe import apply, planned
from workers.surgery.shop import StepRun
from workers.surgery.store import CheckpointStore

Tiny = Callable[..., Path]
RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)
RTN = {"type": "quantize.rtn", "bits": 4, "group_size": 32}
MAGNITUDE = {"type": "prune.magnitude", "sparsity": 0.5}
# A type whose code is replaced here by one that is easy to check by hand.
WHOLE = {"type": "lowrank.svdllm", "rank": 3, "calibration_windows": 2, "calibration_window": 8}
NAME = "model.layers.0.mlp.down_proj.weight"


class Halve:
    """Every addressed weight times one half."""

    version = 1
    runs = 0

    def __init__(self, step: Calibrated) -> None:
        self.step = step

    def run(self, shop: StepRun) -> None:
        type(self).runs += 1
        for weight in shop.weights:
            shop.put(weight.name, shop.read(weight.name) / 2, bits=7.5, sparsity=0.25)
        shop.config["max_position_embeddings"] = 128
        shop.warn("halved")
        shop.figures["weights"] = len(shop.weights)


@pytest.fixture
def halving(monkeypatch: pytest.MonkeyPatch) -> type[Halve]:
    class Fresh(Halve):
        runs = 0

    monkeypatch.setattr(sys.modules[__name__], "Fresh", Fresh, raising=False)
    monkeypatch.setattr(LowrankSvdllm, "runner", f"{__name__}:Fresh")
    return Fresh


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "store", 10**9)


def text(_: Calibrated, *, word: str = "one") -> CalibrationText:
    return CalibrationText(torch.zeros(2, 8, dtype=torch.int64), word, documents=3, asked=2)


def operate(folder: Path, store: CheckpointStore, *steps: dict[str, Any], **options: Any) -> Modified:
    return apply(inspect(folder), RECIPE.validate_python(steps), store=store, **({"calibration": text} | options))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_steps_are_done_in_their_order(tiny: Tiny, store: CheckpointStore, halving: type[Halve]) -> None:
    before = weights(tiny())[NAME]
    with operate(tiny(), store, RTN, WHOLE) as modified:
        found = weights(modified.path)[NAME]
    assert torch.equal(found, quantize(before, bits=4, group_size=32, symmetric=False) / 2)
    with operate(tiny(), store, WHOLE, RTN) as modified:
        found = weights(modified.path)[NAME]
    assert torch.equal(found, quantize(before / 2, bits=4, group_size=32, symmetric=False))


def test_the_manifest_tells_of_every_stage(tiny: Tiny, store: CheckpointStore, halving: type[Halve]) -> None:
    with operate(tiny(), store, RTN, MAGNITUDE, WHOLE, RTN | {"bits": 3, "layers": [0]}) as modified:
        manifest = modified.manifest
        after = weights(modified.path)
    before = weights(tiny())
    assert [record.steps for record in manifest.steps] == [(0, 1), (2,), (3,)]
    assert manifest.steps[1].types == ("lowrank.svdllm",)
    assert manifest.steps[1].warnings == ("halved",)
    assert manifest.steps[1].figures == {"weights": 21.0}
    assert manifest.steps[1].calibration_tokens == 16
    assert manifest.steps[1].calibration_documents == 3
    assert [step["type"] for step in manifest.recipe] == [
        "quantize.rtn",
        "prune.magnitude",
        "lowrank.svdllm",
        "quantize.rtn",
    ]
    changes = {change.name: change for change in manifest.tensors}
    assert changes[NAME].steps == (0, 1, 2, 3)
    assert changes[NAME].bits_per_weight == 3 + 19 / 32  # the last step that set it
    assert changes[NAME].nominal_sparsity == 0.25
    other = NAME.replace("layers.0", "layers.1")
    assert changes[other].steps == (0, 1, 2)
    assert changes[other].bits_per_weight == 7.5
    error = (after[NAME].double() - before[NAME].double()).norm() / before[NAME].double().norm()
    assert changes[NAME].reconstruction_error == pytest.approx(float(error), rel=1e-9)  # of the unmodified weight


def test_recipes_with_the_same_beginning_share_its_work(
    tiny: Tiny, store: CheckpointStore, halving: type[Halve]
) -> None:
    with operate(tiny(), store, WHOLE, RTN):
        assert halving.runs == 1
    with operate(tiny(), store, WHOLE, MAGNITUDE):
        assert halving.runs == 1
    with operate(tiny(), store, WHOLE, RTN) as modified:
        assert not modified.built
    assert halving.runs == 1


def test_another_text_or_reference_or_version_makes_another_checkpoint(
    tiny: Tiny, store: CheckpointStore, halving: type[Halve]
) -> None:
    with operate(tiny(), store, WHOLE) as modified:
        first = modified.manifest.key
    with operate(tiny(), store, WHOLE, calibration=lambda step: text(step, word="two")) as modified:
        assert modified.manifest.key != first
    with operate(tiny(), store, WHOLE, reference=inspect(tiny("llama", seed=7))) as modified:
        assert modified.manifest.key != first
    halving.version = 2
    with operate(tiny(), store, WHOLE) as modified:
        assert modified.manifest.key != first
    with operate(tiny(), store, RTN) as modified:
        plain = modified.manifest.key
    with operate(tiny(), store, RTN, reference=inspect(tiny("llama", seed=7))) as modified:
        assert modified.manifest.key == plain  # round to nearest looks at nothing


def test_what_a_whole_step_did_to_the_configuration_stays(
    tiny: Tiny, store: CheckpointStore, halving: type[Halve]
) -> None:
    with operate(tiny(), store, WHOLE, RTN) as modified:
        assert inspect(modified.path).max_position == 128
        assert not list(modified.path.glob(".scratch*"))


def test_a_step_that_cannot_be_done_is_refused_before_the_first_one_is(
    tiny: Tiny, store: CheckpointStore, halving: type[Halve]
) -> None:
    with pytest.raises(HemostatError) as caught:
        operate(tiny(), store, WHOLE, RTN | {"group_size": 33})
    assert caught.value.code is ErrorCode.GROUP_SIZE_MISMATCH
    assert caught.value.pointer == "/candidate/recipe/1/group_size"
    assert halving.runs == 0


def test_a_failing_stage_leaves_those_before_it_and_nothing_else(
    tiny: Tiny, store: CheckpointStore, halving: type[Halve], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(halving, "run", lambda *_: (_ for _ in ()).throw(OSError("broken")))
    with pytest.raises(OSError, match="broken"):
        operate(tiny(), store, RTN, WHOLE)
    assert len(store.keys) == 1
    assert not list(store.root.glob(".staging*"))
    with operate(tiny(), store, RTN) as modified:
        assert not modified.built


def test_a_step_that_looks_at_text_needs_some(tiny: Tiny, store: CheckpointStore, halving: type[Halve]) -> None:
    with pytest.raises(HemostatError) as caught:
        apply(inspect(tiny()), RECIPE.validate_python([WHOLE]), store=store)
    assert caught.value.code is ErrorCode.RECIPE_NOT_APPLICABLE


def test_a_value_that_is_no_number_is_not_written(tiny: Tiny, store: CheckpointStore, halving: type[Halve]) -> None:
    def run(self: Halve, shop: StepRun) -> None:
        shop.put(NAME, shop.read(NAME) * float("nan"))

    halving.run = run  # type: ignore[method-assign]
    with pytest.raises(HemostatError) as caught:
        operate(tiny(), store, WHOLE)
    assert caught.value.code is ErrorCode.CHECKPOINT_NOT_FINITE
    assert NAME in caught.value.detail
    assert store.keys == ()


def test_layers_can_be_put_together_anew(tiny: Tiny, store: CheckpointStore, halving: type[Halve]) -> None:
    def run(self: Halve, shop: StepRun) -> None:
        names = list(shop.source.tensors)
        shop.clear()
        for name in names:
            if ".layers.1." not in name:
                shop.keep(name.replace(".layers.2.", ".layers.1."), of=name)
        shop.config["num_hidden_layers"] = 2

    halving.run = run  # type: ignore[method-assign]
    before = weights(tiny())
    with operate(tiny(), store, WHOLE) as modified:
        after = weights(modified.path)
        assert inspect(modified.path).layers == 2
    assert torch.equal(after["model.layers.1.mlp.up_proj.weight"], before["model.layers.2.mlp.up_proj.weight"])
    assert len(after) < len(before)


def test_the_plan_of_a_recipe_is_the_key_under_which_the_store_then_has_it(
    tiny: Tiny, store: CheckpointStore, halving: type[Halve]
) -> None:
    source = inspect(tiny())
    for steps in ([RTN], [MAGNITUDE, WHOLE]):
        recipe = RECIPE.validate_python(steps)
        plan = planned(source, recipe, store=store, calibration=text)
        assert plan not in store.keys
        operate(tiny(), store, *steps).release()
        assert plan in store.keys
        assert planned(source, recipe, store=store, calibration=text) == plan
    assert halving.runs == 1
    assert planned(source, (), store=store) == fingerprint(source.path)
