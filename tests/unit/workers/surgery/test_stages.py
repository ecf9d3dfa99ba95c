"""Recipes of several stages: what each leaves, what is shared, what is refused before any work."""

import shutil
import sys
from types import SimpleNamespace

import pytest
import torch

from app.contracts.errors import ErrorCode
from app.contracts.notice import Notice
from app.models.checkpoint import fingerprint, inspect
from app.recipes.lowrank import LowrankSvdllm
from tests.support import pruning
from tests.support.checked import RECIPE
from tests.support.pruning import weights
from tests.support.refusals import refusal_of
from workers.surgery.calibration_text import CalibrationText
from workers.surgery.quantize_rtn import quantize
from workers.surgery.recipe import application, apply

RTN = {"type": "quantize.rtn", "bits": 4, "group_size": 32}
MAGNITUDE = {"type": "prune.magnitude", "sparsity": 0.5}
# A type whose code is replaced here by one that is easy to check by hand.
WHOLE = {"type": "lowrank.svdllm", "rank": 3, "calibration_windows": 2, "calibration_window": 8}
NAME = "model.layers.0.mlp.down_proj.weight"


HALVED = Notice(code="halved", text="halved")


class Halve:
    """Every addressed weight times one half."""

    version = 1
    runs = 0

    def __init__(self, step):
        self.step = step

    def run(self, context):
        type(self).runs += 1
        for weight in context.weights:
            context.put(weight.name, context.read(weight.name) / 2, bits=7.5, sparsity=0.25)
        context.config["max_position_embeddings"] = 128
        context.warn(HALVED)
        context.figures["weights"] = len(context.weights)


@pytest.fixture(autouse=True)
def halving(monkeypatch):
    class Fresh(Halve):
        runs = 0

    monkeypatch.setattr(sys.modules[__name__], "Fresh", Fresh, raising=False)
    monkeypatch.setattr(LowrankSvdllm, "runner", f"{__name__}:Fresh")
    return Fresh


def text(_, *, word="one"):
    return CalibrationText(torch.zeros(2, 8, dtype=torch.int64), word, documents=3, asked=2)


def operate(folder, store, *steps, **options):
    return pruning.operate(folder, store, *steps, **({"calibration": text} | options))


def test_steps_are_done_in_their_order(tiny, store):
    before = weights(tiny())[NAME]
    with operate(tiny(), store, RTN, WHOLE) as modified:
        found = weights(modified.path)[NAME]
    assert torch.equal(found, quantize(before, bits=4, group_size=32, symmetric=False) / 2)
    with operate(tiny(), store, WHOLE, RTN) as modified:
        found = weights(modified.path)[NAME]
        assert inspect(modified.path).max_position == 128, "the whole step's change of the configuration stays"
        assert not list(modified.path.glob(".scratch*"))
    assert torch.equal(found, quantize(before / 2, bits=4, group_size=32, symmetric=False))


def test_the_manifest_tells_of_every_stage(tiny, store):
    with operate(tiny(), store, RTN, MAGNITUDE, WHOLE, RTN | {"bits": 3, "layers": [0]}) as modified:
        manifest = modified.manifest
        after = weights(modified.path)
    before = weights(tiny())
    assert [record.steps for record in manifest.steps] == [(0, 1), (2,), (3,)]
    assert manifest.steps[1].types == ("lowrank.svdllm",)
    assert manifest.steps[1].warnings == (HALVED,)
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


def test_recipes_with_the_same_beginning_share_its_work(tiny, store, halving):
    with operate(tiny(), store, WHOLE, RTN):
        assert halving.runs == 1
    with operate(tiny(), store, WHOLE, MAGNITUDE):
        assert halving.runs == 1
    with operate(tiny(), store, WHOLE, RTN) as modified:
        assert not modified.built
    assert halving.runs == 1


def test_another_text_or_reference_or_version_makes_another_checkpoint(tiny, store, halving):
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


def test_a_step_that_cannot_be_done_is_refused_before_the_first_one_is(tiny, store, halving):
    error = refusal_of(operate, tiny(), store, WHOLE, RTN | {"group_size": 33})
    assert (error.code, error.pointer) == (ErrorCode.GROUP_SIZE_MISMATCH, "/candidate/recipe/1/group_size")
    without_text = refusal_of(apply, inspect(tiny()), RECIPE.validate_python([WHOLE]), device="cpu", store=store)
    assert without_text.code is ErrorCode.RECIPE_NOT_APPLICABLE
    assert halving.runs == 0


def test_a_failing_stage_leaves_those_before_it_and_nothing_else(tiny, store, halving, monkeypatch):
    monkeypatch.setattr(halving, "run", lambda *_: (_ for _ in ()).throw(OSError("broken")))
    with pytest.raises(OSError, match="broken"):
        operate(tiny(), store, RTN, WHOLE)
    assert len(store.keys) == 1
    assert not list(store.root.glob(".staging*"))
    with operate(tiny(), store, RTN) as modified:
        assert not modified.built


def test_layers_can_be_put_together_anew(tiny, store, halving):
    def run(self, context):
        names = list(context.source.tensors)
        context.clear()
        for name in names:
            if ".layers.1." not in name:
                context.keep(name.replace(".layers.2.", ".layers.1."), of=name)
        context.config["num_hidden_layers"] = 2

    halving.run = run
    before = weights(tiny())
    with operate(tiny(), store, WHOLE) as modified:
        after = weights(modified.path)
        assert inspect(modified.path).layers == 2
    assert torch.equal(after["model.layers.1.mlp.up_proj.weight"], before["model.layers.2.mlp.up_proj.weight"])
    assert len(after) < len(before)


def test_the_plan_of_a_recipe_is_the_key_under_which_the_store_then_has_it(tiny, store, halving):
    source = inspect(tiny())
    for steps in ([RTN], [MAGNITUDE, WHOLE]):
        recipe = RECIPE.validate_python(steps)
        plan = application(source, recipe, device="cpu", store=store, calibration=text).key
        assert plan not in store.keys
        operate(tiny(), store, *steps).release()
        assert plan in store.keys
        assert application(source, recipe, device="cpu", store=store, calibration=text).key == plan
    assert halving.runs == 1
    assert application(source, (), device="cpu", store=store).key == fingerprint(source.path)


def test_a_disk_that_has_no_room_for_the_last_stage_is_refused_before_the_first(tiny, store, halving, monkeypatch):
    """The second has the first one's checkpoint beside it, and the states of its text: two borders, two bytes a
    number."""
    info = inspect(tiny())
    needed = 2 * info.bytes + 2 * 2 * info.hidden_size * 16
    for free, runs in ((needed - 1, 0), (needed, 1)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        if runs:
            operate(info.path, store, RTN, WHOLE).release()
        else:
            error = refusal_of(lambda: operate(info.path, store, RTN, WHOLE))
            assert error.code is ErrorCode.DISK_FULL
            assert store.keys == ()
        assert halving.runs == runs
