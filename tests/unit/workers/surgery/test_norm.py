"""Norm steps against transformers: a scaled norm is scaled layers behind it, a dropped one divides by the root."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from app.contracts.errors import ErrorCode
from app.models.checkpoint import inspect
from tests.support.checked import RECIPE
from tests.support.quantizing import divergence, operate, text
from tests.support.quantizing import tensors as weights
from tests.support.refusals import refusal_of
from tests.support.tiny import make_checkpoint
from workers.surgery.recipe import apply

KINDS = ["llama", "qwen2", "gemma2"]


def model(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def logits(of):
    with torch.no_grad():
        return of(input_ids=torch.arange(2, 42)[None]).logits


@pytest.mark.parametrize("kind", KINDS)
def test_a_scaled_norm_is_scaled_layers_behind_it(tiny, store, kind):
    step = {"type": "norm.scale", "factor": 2.0, "layers": [1], "modules": ["input_layernorm"]}
    with operate(tiny(kind), store, step) as modified:
        made = logits(model(modified.path))
    expected = model(tiny(kind))
    with torch.no_grad():
        for name in ("q_proj", "k_proj", "v_proj"):
            getattr(expected.model.layers[1].self_attn, name).weight.mul_(2.0)
    assert torch.allclose(made, logits(expected), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(made, logits(model(tiny(kind))), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_dropped_norm_divides_by_the_root_mean_square_alone(tiny, store, kind):
    spread = {"type": "norm.scale", "factor": 1.5, "shift": 0.25}  # gains that are not 1 already
    with operate(tiny(kind), store, spread) as modified:
        gained = model(modified.path).model.layers[0].input_layernorm
        gain = gained.weight + (1 if kind == "gemma2" else 0)
        assert torch.allclose(gain, torch.full_like(gain, 1.75), atol=0.01)
    with operate(tiny(kind), store, spread, {"type": "norm.drop"}) as modified:
        made = model(modified.path)
        x = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
        plain = x / (x.square().mean(-1, keepdim=True) + made.config.rms_norm_eps).sqrt()
        for name, module in made.named_modules():
            if name.endswith("norm"):
                assert torch.allclose(module(x), plain, rtol=1e-5, atol=1e-6), name


def test_layers_leave_the_final_norm_alone_unless_it_is_named(tiny, store):
    def changed(**where):
        before = weights(tiny("llama"))
        with operate(tiny("llama"), store, {"type": "norm.scale", "shift": 1.0, **where}) as modified:
            after = weights(modified.path)
        return {name for name in before if not torch.equal(before[name], after[name])}

    two = {
        f"model.layers.{index}.{name}.weight"
        for index in (1,)
        for name in ("input_layernorm", "post_attention_layernorm")
    }
    assert changed(layers=[1]) == two
    assert changed(modules=["norm"]) == {"model.norm.weight"}
    assert len(changed()) == 7


@pytest.mark.parametrize("kind", KINDS)
def test_epsilon_is_the_configurations(tiny, store, kind):
    with operate(tiny(kind), store, {"type": "norm.epsilon", "epsilon": 0.5}) as modified:
        made = model(modified.path)
        assert inspect(modified.path).config["rms_norm_eps"] == 0.5
        assert modified.manifest.steps[0].figures["epsilon"] == 0.5
        x = torch.full((1, 64), 0.5)
        assert torch.allclose(made.model.norm(x), x / (0.25 + 0.5) ** 0.5, atol=1e-6)
        before, after = weights(tiny(kind)), weights(modified.path)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("step", "code", "pointer"),
    [
        ({"type": "norm.epsilon", "epsilon": 1.0, "layers": [0]}, ErrorCode.RECIPE_NOT_APPLICABLE, "layers"),
        ({"type": "norm.epsilon", "epsilon": 1.0, "modules": ["norm"]}, ErrorCode.RECIPE_NOT_APPLICABLE, "modules"),
        ({"type": "norm.drop", "modules": ["q_norm"]}, ErrorCode.UNKNOWN_MODULE, "modules/0"),
        ({"type": "norm.drop", "layers": [3]}, ErrorCode.UNKNOWN_MODULE, "layers/0"),
        ({"type": "norm.tweak", "modules": ["norm"]}, ErrorCode.RECIPE_NOT_APPLICABLE, "modules"),
    ],
)
def test_what_means_nothing_is_refused(tiny, store, step, code, pointer):
    error = refusal_of(operate, tiny("llama"), store, step)
    assert (error.code, error.pointer) == (code, f"/candidate/recipe/0/{pointer}")


# ---- tweaking


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_tweaking_undoes_what_was_done_to_norms(tiny, store, kind):
    hurt = {"type": "norm.scale", "factor": 1.3, "layers": [1]}
    tweak = {"type": "norm.tweak", "steps": 60, "learning_rate": 0.02}
    with operate(tiny(kind), store, hurt, tweak) as modified, operate(tiny(kind), store, hurt) as wounded:
        figures = modified.manifest.steps[1].figures
        assert figures["distance_after"] < 0.5 * figures["distance_before"]
        before, after, original = weights(wounded.path), weights(modified.path), weights(tiny(kind))
        touched = {name for name in before if not torch.equal(before[name], after[name])}
        assert touched
        assert all("norm" in name and "layers" in name for name in touched)
        target = logits(model(tiny(kind)))
        healed, hurts = (logits(model(one.path)) for one in (modified, wounded))
        assert original.keys() == after.keys()
    assert float((healed - target).square().mean()) < float((hurts - target).square().mean())


def test_the_rate_grows_with_depth_to_twice_the_first_block_s(tiny, store):
    """Adam's first step is its rate in the gradient's direction, whatever the gradient's size: each gain moves by
    a rate's share of itself."""
    hurt = {"type": "norm.scale", "factor": 1.5}
    tweak = {"type": "norm.tweak", "steps": 1, "learning_rate": 0.0625}
    with operate(tiny("llama"), store, hurt) as wounded, operate(tiny("llama"), store, hurt, tweak) as modified:
        before, after = weights(wounded.path), weights(modified.path)
        assert modified.manifest.steps[1].figures["blocks_changed"] == 3
    for layer, rate in enumerate((0.0625, 0.09375, 0.125)):
        for name in ("input_layernorm", "post_attention_layernorm"):
            norm = f"model.layers.{layer}.{name}.weight"
            moved = (after[norm].float() / before[norm].float() - 1).abs()
            assert torch.allclose(moved, torch.full_like(moved, rate), rtol=0.05), norm


def test_gains_that_make_it_worse_are_not_kept(tiny, store):
    """At such a rate a gain becomes 0 or twice what it was, and in later blocks changes its sign."""
    coarse, tweak = {"type": "quantize.rtn", "bits": 4, "group_size": 32}, {"type": "norm.tweak", "steps": 1}
    with (
        operate(tiny("llama"), store, coarse) as wounded,
        operate(tiny("llama"), store, coarse, tweak | {"learning_rate": 1.0}) as modified,
    ):
        figures = modified.manifest.steps[1].figures
        assert figures["blocks_changed"] == 0
        assert figures["distance_after"] == figures["distance_before"] > 0
        before, after = weights(wounded.path), weights(modified.path)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_blocks_are_held_to_those_that_they_were_made_of(tiny, store):
    """One layer dropped and another one repeated: as deep as before, with other partners than the numbers say. The
    distances of all blocks are taken from transformers' hidden states."""
    folder = tiny("llama", num_hidden_layers=5)
    moved = [{"type": "prune.layers", "layers": [1]}, {"type": "extend.duplicate", "layers": [2]}]
    tweak = {"type": "norm.tweak", "steps": 1, "layers": [4], "learning_rate": 1e-6}
    with operate(folder, store, *moved) as wounded, operate(folder, store, *moved, tweak) as modified:
        figures = modified.manifest.steps[-1].figures
        ours, theirs = (left_by_blocks(one) for one in (wounded.path, folder))
    expected = sum(relative(ours[number], theirs[layer]) for number, layer in enumerate([0, 2, 3, 3, 4])) / 5
    by_number = sum(map(relative, ours, theirs)) / 5
    assert figures["distance_before"] == pytest.approx(expected, rel=0.01)  # bf16 here, float32 there
    assert abs(expected / by_number - 1) > 0.04


def left_by_blocks(folder):
    """(T, D) what leaves each block on the calibration text."""
    made, found = model(folder), []
    for layer in made.model.layers:
        layer.register_forward_hook(
            lambda _, __, leaving: found.append((leaving[0] if isinstance(leaving, tuple) else leaving).flatten(0, 1))
        )
    with torch.no_grad():
        made(input_ids=text().tokens_NL)
    return found


def relative(ours_TD, theirs_TD):
    """The mean over channels of the differences of mean and variance, relative to the spread of the second."""
    variance_D = theirs_TD.var(0, correction=0)
    mean = (ours_TD.mean(0) - theirs_TD.mean(0)).abs() / variance_D.sqrt()
    spread = (ours_TD.var(0, correction=0) - variance_D).abs() / variance_D
    return float((mean + spread).mean())


def test_a_reference_of_another_depth_is_refused(tiny, tmp_path, store):
    shallow = inspect(make_checkpoint(tmp_path / "shallow", "llama", num_hidden_layers=2))
    recipe, reference = RECIPE.validate_python([{"type": "norm.tweak"}]), inspect(tiny("llama"))
    error = refusal_of(
        apply, shallow, recipe, device="cpu", store=store, calibration=lambda _: text(), reference=reference
    )
    assert error.code is ErrorCode.RECIPE_NOT_APPLICABLE
    assert "cannot be compared" in error.detail


@pytest.mark.parametrize("step", [{"type": "norm.drop"}, {"type": "norm.scale", "factor": 0.5, "shift": 0.25}])
@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_behind_scaled_channels_gains_are_what_they_stand_for(outliers, shared, kind, step):
    source = outliers(kind)
    awq = {"type": "quantize.awq", "bits": 8, "group_size": 32}
    with operate(source, shared, awq) as scaled, operate(source, shared, step) as alone:
        rounding, effect = divergence(source, scaled.path), divergence(source, alone.path)
        with operate(source, shared, awq, step) as behind:
            assert divergence(alone.path, behind.path) < max(2 * rounding, 0.05 * effect)
