import pytest
import torch
from safetensors.torch import save_file

from app.contracts.errors import ErrorCode
from app.models.checkpoint import inspect
from tests.support.checked import checked
from tests.support.pruning import load, operate, weights
from tests.support.quantizing import divergence
from tests.support.refusals import refusal_of
from workers.mitigation.gradient_pruning import recovery
from workers.mitigation.gradient_pruning import step as pruning
from workers.surgery.calibration_text import CalibrationText
from workers.surgery.channels import Channels

STEP = {"type": "prune.gradient", "sparsity": 0.5, "passes": 2, "reconstruct_epochs": 2}


def text(_):
    tokens = torch.randint(0, 320, (8, 32), generator=torch.Generator().manual_seed(3))
    return CalibrationText(tokens, "seeded", 8, 8)


def prune(folder, store, *steps, **options):
    return operate(folder, store, *steps, calibration=text, **options)


HALF, PATTERN = {"sparsity": 0.5}, {"pattern": "2:4", "sparsity": None}


@pytest.mark.parametrize(
    ("kind", "strength"), [("llama", HALF), ("llama", PATTERN), ("qwen2", HALF), ("gemma2", PATTERN)]
)
def test_zeros_are_as_many_as_asked_and_nothing_else_changes(tiny, shared, kind, strength):
    before = weights(tiny(kind))
    with prune(tiny(kind), shared, STEP | strength | {"reconstruct_epochs": 6}) as modified:
        after, manifest = weights(modified.path), modified.manifest
    assert after.keys() == before.keys()
    linear = [name for name in before if "_proj.weight" in name]
    assert {change.name for change in manifest.tensors} == set(linear)
    zeros = sum(int((after[name] == 0).sum()) for name in linear)
    total = sum(before[name].numel() for name in linear)
    assert zeros == pytest.approx(total / 2, abs=2)  # a weight that lands on 0 by itself counts too
    for name, weight in before.items():
        assert after[name].dtype == weight.dtype
        if name not in linear:
            assert torch.equal(after[name], weight), name
        elif "pattern" in strength:
            assert bool(((after[name].reshape(-1, 4) != 0).sum(1) <= 2).all()), name
            assert int((after[name] == 0).sum()) == pytest.approx(weight.numel() / 2, abs=2)
    assert manifest.steps[0].figures["block_error_after"] < manifest.steps[0].figures["block_error_before"]


def test_the_budget_is_uniform_where_that_is_asked_for(tiny, shared):
    with prune(tiny(), shared, STEP | {"budget": "uniform", "sparsity": 0.25}) as modified:
        for change in modified.manifest.tensors:
            assert change.zeros == pytest.approx(change.elements / 4, abs=2)


def test_a_block_is_given_what_pruned_ones_give_and_is_to_give_what_the_reference_has_there(tiny, store, monkeypatch):
    """By transformers' hidden states of the result and of the reference; of the last they show the normed ones."""
    seen = []
    inner = pruning.reconstruct

    def told(call, trained, fetch, *arguments, **options):
        seen.append(fetch(torch.arange(8)))
        return inner(call, trained, fetch, *arguments, **options)

    def states(folder):
        model = load(folder)
        with torch.no_grad():
            found = model.model(input_ids=text(None).tokens_NL, output_hidden_states=True)
        return tuple(one.float() for one in found.hidden_states)

    monkeypatch.setattr(pruning, "reconstruct", told)
    with prune(tiny(), store, STEP) as modified:
        ours, theirs = states(modified.path), states(tiny())
    assert len(seen) == 3
    for index, (_, wanted) in enumerate(seen[:-1]):
        apart = float((ours[index + 1] - theirs[index + 1]).norm())
        assert float((wanted.float() - theirs[index + 1]).norm()) < 0.05 * apart
        assert float((seen[index + 1][0].float() - ours[index + 1]).norm()) < 0.05 * apart
    assert torch.equal(seen[0][0].float(), ours[0])


def test_prices_behind_scaled_channels_are_those_of_the_model_that_is_the_same_without(tiny, copy, store, monkeypatch):
    """Channels scaled by powers of two: another checkpoint, number for number the same function."""
    folder, draws = copy("qwen2"), torch.Generator().manual_seed(4)
    channels = Channels()
    for layer in ("model.layers.0.", "model.layers.2."):
        before, values, within = (2.0 ** torch.randint(-3, 4, (size,), generator=draws) for size in (64, 32, 128))
        channels.scale(f"{layer}input_layernorm.weight", outputs=1 / before)
        for name in ("q_proj", "k_proj", "v_proj"):
            channels.scale(f"{layer}self_attn.{name}.weight", inputs=before)
        for name in ("weight", "bias"):
            channels.scale(f"{layer}self_attn.v_proj.{name}", outputs=1 / values)
        channels.scale(f"{layer}self_attn.o_proj.weight", inputs=values.repeat(2))
        channels.scale(f"{layer}mlp.up_proj.weight", outputs=1 / within)
        channels.scale(f"{layer}mlp.down_proj.weight", inputs=within)
    tensors = {name: channels.moved(name, one).to(one.dtype) for name, one in weights(folder).items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    channels.save(folder)
    assert divergence(tiny("qwen2"), folder, tokens_NL=text(None).tokens_NL) == 0
    found = []
    inner = pruning.gather

    def told(*arguments, **options):
        prices, leaving, divergences = inner(*arguments, **options)
        found.append({name: prices.of(name).clone() for name in prices.fisher})
        return prices, leaving, divergences

    monkeypatch.setattr(pruning, "gather", told)
    step = STEP | {"reconstruct": False}
    with prune(tiny("qwen2"), store, step), prune(folder, store, step, reference=inspect(tiny("qwen2"))):
        pass
    plain, scaled = found
    assert plain.keys() == scaled.keys()
    for name, price in plain.items():
        torch.testing.assert_close(scaled[name], price, rtol=1e-4, atol=0, msg=name)


def test_it_does_less_harm_than_wanda_and_recovery_less_again(tiny, shared):
    """On windows that nothing was fitted on, after text enough that no rounding decides. The weights of this model are
    random: after their reconstruction recovery finds nothing that holds elsewhere, so it is tried without."""
    folder = tiny()
    tokens = torch.randint(0, 320, (80, 32), generator=torch.Generator().manual_seed(3))
    fitted = CalibrationText(tokens[:64], "more", 64, 64)
    bare = STEP | {"reconstruct": False}
    harm, found = {}, {}
    for label, step in {
        "wanda": {"type": "prune.wanda", "sparsity": 0.5},
        "bare": bare,
        "recovered": bare | {"recovery_steps": 40},
        "ours": STEP,
    }.items():
        with operate(folder, shared, step, calibration=lambda _: fitted) as modified:
            harm[label] = divergence(folder, modified.path, tokens_NL=tokens[64:])
            found[label] = weights(modified.path)
            if label == "recovered":
                assert modified.manifest.steps[0].figures["recovery_steps"] == 40
                assert modified.manifest.sparsity == pytest.approx(0.5, abs=1e-3)
    assert harm["recovered"] < harm["bare"] < harm["wanda"], harm
    assert harm["ours"] < 0.8 * harm["bare"], harm
    for name, bare_one in found["bare"].items():  # what was kept is trained, and nothing else
        recovered = found["recovered"][name]
        assert bool((recovered[bare_one == 0] == 0).all()), name
        assert torch.equal(recovered, bare_one) == ("_proj.weight" not in name), name


def test_a_recovery_that_does_not_help_on_windows_that_it_has_not_seen_is_not_kept(tiny, store, monkeypatch):
    bare = STEP | {"reconstruct": False}
    monkeypatch.setattr(recovery, "RATE", 3.0)
    with prune(tiny(), store, bare) as without, prune(tiny(), store, bare | {"recovery_steps": 5}) as after:
        figures = after.manifest.steps[-1].figures
        assert figures["recovery_kl_after_nats"] == figures["recovery_kl_before_nats"]
        assert any(warning.code == "no_help_of_recovery" for warning in after.manifest.steps[-1].warnings)
        expected = weights(without.path)
        for name, weight in weights(after.path).items():
            assert torch.equal(weight, expected[name]), name


def test_layers_that_moved_are_not_held_to_those_of_their_number(tiny, shared):
    """One layer dropped and another repeated: the shapes are the reference's, the layers are not. Pruned as if the
    model were its own reference."""
    moved = [{"type": "prune.layers", "layers": [0]}, {"type": "extend.duplicate", "layers": [1]}]
    with (
        prune(tiny(), shared, *moved, STEP) as modified,
        prune(tiny(), shared, *moved) as wounded,
        prune(wounded.path, shared, STEP) as alone,
    ):
        assert modified.manifest.steps[-1].warnings[0].code == "other_shape"
        ours, theirs = weights(modified.path), weights(alone.path)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(("windows", "warned"), [(4, False), (3, True)])
def test_fewer_tokens_than_a_layer_has_inputs_are_warned_of(tiny, store, windows, warned):
    short = CalibrationText(text(None).tokens_NL[:windows], f"first {windows}", windows, windows)
    step = STEP | {"passes": 1, "reconstruct_epochs": 1}
    with operate(tiny(), store, step, calibration=lambda _: short) as modified:
        told = [one for one in modified.manifest.steps[-1].warnings if one.code == "singular_moment"]
    assert bool(told) is warned
    assert not warned or told[0].facts == {"tokens": 96, "inputs": 128}


def test_what_cannot_be_pruned_is_refused(tiny):
    for kind, step, code, field in (
        ("llama", STEP | {"modules": ["embed_tokens"]}, ErrorCode.RECIPE_NOT_APPLICABLE, "modules"),
        ("mixtral", STEP, ErrorCode.RECIPE_NOT_APPLICABLE, "type"),
        ("llama", STEP | PATTERN | {"pattern": "2:5"}, ErrorCode.PATTERN_MISMATCH, "pattern"),
    ):
        error = refusal_of(checked, tiny(kind), step)
        assert (error.code, error.pointer) == (code, f"/r/0/{field}")
