"""Parts of a model, mixed checkpoints, and how damage is spread over layers."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from app.contracts.report import Mean
from app.models.checkpoint import inspect
from tests.support.outliers import with_outliers
from tests.support.quantizing import divergence, operate
from tests.support.tiny import make_checkpoint
from workers.diagnosis.mitigate.damage import damage_of, groups_of, layer_shares, restorable, restored
from workers.measuring.subject import recipe_of
from workers.surgery.calibration_text import CalibrationText
from workers.surgery.recipe import apply
from workers.surgery.store import CheckpointStore

CONTEXT = SimpleNamespace(check_cancelled=lambda: None)
KL = Mean(mean=0.4, ci=(0.3, 0.5))


@pytest.fixture
def changed(tiny, tmp_path):
    recipe = recipe_of([{"type": "quantize.rtn", "bits": 3, "group_size": 32, "layers": [0, 2]}])
    with apply(inspect(tiny()), recipe, device="cpu", store=CheckpointStore(tmp_path / "store", 10**9)) as modified:
        yield modified


def test_parts_are_the_layers_that_were_changed(changed, tiny):
    groups = groups_of(inspect(changed.path), inspect(tiny()), changed.manifest)
    assert [group.layers for group in groups] == [(0,), (2,)]
    assert [group.name for group in groups] == ["layer 0", "layer 2"]
    assert all(0 < (group.error or 0) < 1 for group in groups)


def test_a_restored_part_is_the_references_and_nothing_else_is(changed, tiny, tmp_path):
    candidate, reference = inspect(changed.path), inspect(tiny())
    group = groups_of(candidate, reference, changed.manifest)[0]
    with restored(candidate, reference, group.tensors, tmp_path / "mixed", CONTEXT) as info:
        mixed = load_file(info.path / "model.safetensors")
    own, other = (load_file(one.path / "model.safetensors") for one in (candidate, reference))
    for name, tensor in mixed.items():
        assert torch.equal(tensor, other[name] if ".layers.0." in name else own[name]), name
    assert not (tmp_path / "mixed").exists()


def test_a_layer_whose_channels_were_moved_into_its_norms_comes_back_whole(tiny, tmp_path):
    """AWQ multiplies the input channels of matrices and divides norms by it: one without the other is another model."""
    tokens_NL = torch.randint(2, 300, (4, 16), generator=torch.Generator().manual_seed(0))
    recipe = recipe_of([{"type": "quantize.awq", "bits": 4, "group_size": 32, "layers": [1]}])
    text = CalibrationText(tokens_NL, "text", documents=4, asked=4)
    store = CheckpointStore(tmp_path / "store", 10**9)
    with apply(inspect(tiny()), recipe, device="cpu", store=store, calibration=lambda _: text) as modified:
        candidate, reference = inspect(modified.path), inspect(tiny())
        (group,) = groups_of(candidate, reference, modified.manifest)
        assert "model.layers.1.input_layernorm.weight" in group.tensors
        with restored(candidate, reference, group.tensors, tmp_path / "mixed", CONTEXT) as info:
            mixed = load_file(info.path / "model.safetensors")
    other = load_file(reference.path / "model.safetensors")
    assert all(torch.equal(tensor, other[name]) for name, tensor in mixed.items())


def test_a_changed_norm_is_damage_of_its_layer(tiny, tmp_path):
    rounded = {"type": "quantize.rtn", "bits": 8, "group_size": 32, "layers": [0]}
    recipe = recipe_of([rounded, {"type": "norm.scale", "factor": 2.0, "layers": [2]}])
    with apply(inspect(tiny()), recipe, device="cpu", store=CheckpointStore(tmp_path / "store", 10**9)) as modified:
        groups = groups_of(inspect(modified.path), inspect(tiny()), modified.manifest)
    assert [group.layers for group in groups] == [(0,), (2,)]


@pytest.mark.parametrize("kind", ["quantize.awq", "quantize.smoothquant"])
def test_restored_parts_of_a_model_whose_channels_were_scaled_lose_less(tmp_path, kind):
    source = with_outliers(make_checkpoint(tmp_path / "source"))
    with operate(
        source,
        CheckpointStore(tmp_path / "store", 10**9),
        {"type": kind, "bits": 4} | ({"group_size": 32} if kind == "quantize.awq" else {}),
    ) as made:
        candidate, reference = inspect(made.path), inspect(source)
        groups = groups_of(candidate, reference, made.manifest)
        whole = divergence(source, made.path)
        for group in groups:
            with restored(candidate, reference, group.tensors, tmp_path / "mixed", CONTEXT) as info:
                assert divergence(source, info.path) < whole
        every = [name for group in groups for name in group.tensors]
        with restored(candidate, reference, every, tmp_path / "mixed", CONTEXT) as info:
            assert divergence(source, info.path) < 0.05 * whole


def test_what_has_other_shapes_cannot_be_restored(tiny):
    assert restorable(inspect(tiny()), inspect(tiny(seed=1))) == ""
    assert "shapes" in restorable(inspect(tiny()), inspect(tiny("llama-untied")))


def test_shares_follow_what_restoring_saved_and_never_go_below_zero(changed, tiny):
    candidate = inspect(changed.path)
    groups = groups_of(candidate, inspect(tiny()), changed.manifest)
    saved = {"layer 0": Mean(mean=0.3, ci=(0.2, 0.4)), "layer 2": Mean(mean=-0.1, ci=(-0.2, 0.0))}
    wound = damage_of(KL, groups, saved, "")
    assert [(part.name, part.share) for part in wound.parts] == [("layer 0", 1.0), ("layer 2", 0.0)]
    assert layer_shares(wound.parts, candidate, changed.manifest) == {0: 1.0}


def test_without_a_measurement_the_error_of_the_weights_tells(changed, tiny):
    groups = groups_of(inspect(changed.path), inspect(tiny()), changed.manifest)
    wound = damage_of(KL, groups, {}, "packed")
    assert wound.how == "reconstruction_error"
    assert sum(part.share or 0 for part in wound.parts) == pytest.approx(1)
    assert damage_of(KL, [], {}, "").how == "unknown"
