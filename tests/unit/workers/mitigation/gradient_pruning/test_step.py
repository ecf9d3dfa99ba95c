from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import inspect
from app.recipes.base import Calibrated
from app.recipes.recipe import Recipe
from tests.support.attention import attention_of
from tests.support.copies import Copy, copier
from workers.mitigation.gradient_pruning import recovery
from workers.mitigation.gradient_pruning import step as pruning
from workers.mitigation.objectives import logits
from workers.surgery import resumption
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.calibration_text import CalibrationText
from workers.surgery.channels import Channels
from workers.surgery.modified import Modified
from workers.surgery.reading import open_tensors
from workers.surgery.recipe import apply
from workers.surgery.store import CheckpointStore

Tiny = Callable[..., Path]
RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)
STEP: dict[str, Any] = {"type": "prune.gradient", "sparsity": 0.5, "passes": 2, "reconstruct_epochs": 2}


def text(_: Calibrated | None) -> CalibrationText:
    tokens = torch.randint(0, 320, (8, 32), generator=torch.Generator().manual_seed(3))
    return CalibrationText(tokens, "seeded", 8, 8)


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "store", 10**9)


@pytest.fixture
def copy(tiny: Tiny, tmp_path: Path) -> Copy:
    return copier(tiny, tmp_path)


def prune(folder: Path, store: CheckpointStore, *steps: dict[str, Any], **options: Any) -> Modified:
    return apply(inspect(folder), RECIPE.validate_python(steps), store=store, calibration=text, **options)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


def divergence(reference: Path, candidate: Path, tokens: torch.Tensor) -> float:
    """Mean KL in nats by transformers, float32."""
    with torch.no_grad():
        p, q = (
            AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(tokens).logits.log_softmax(-1)
            for folder in (reference, candidate)
        )
        return float((p.exp() * (p - q)).sum(-1).mean())


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2"])
@pytest.mark.parametrize("strength", [{"sparsity": 0.5}, {"pattern": "2:4", "sparsity": None}])
def test_zeros_are_as_many_as_asked_and_nothing_else_changes(
    tiny: Tiny, store: CheckpointStore, kind: str, strength: dict[str, Any]
) -> None:
    before = weights(tiny(kind))
    with prune(tiny(kind), store, STEP | strength | {"reconstruct_epochs": 6}) as modified:
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


def test_the_budget_is_uniform_where_that_is_asked_for(tiny: Tiny, store: CheckpointStore) -> None:
    with prune(tiny(), store, STEP | {"budget": "uniform", "sparsity": 0.25}) as modified:
        for change in modified.manifest.tensors:
            assert change.zeros == pytest.approx(change.elements / 4, abs=2)


def test_a_budget_by_gradients_differs_between_modules(tiny: Tiny, store: CheckpointStore) -> None:
    with prune(tiny(), store, STEP) as modified:
        shares = [change.sparsity for change in modified.manifest.tensors]
        figures = modified.manifest.steps[0].figures
    assert max(shares) - min(shares) > 0.02
    assert figures["module_share_least"] == pytest.approx(min(shares), abs=1e-3)
    assert figures["module_share_most"] == pytest.approx(max(shares), abs=1e-3)
    assert figures["kl_at_pass_1_nats"] > 0


def test_modules_on_which_little_hangs_lose_the_most(copy: Copy, store: CheckpointStore) -> None:
    """An MLP whose last layer passes on next to nothing: the weights before it are as large as elsewhere."""
    folder = copy("llama")
    tensors = weights(folder)
    tensors["model.layers.1.mlp.down_proj.weight"] *= 1e-3
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with prune(folder, store, STEP | {"reconstruct": False}) as modified:
        shares = {change.name.removeprefix("model.layers."): change.sparsity for change in modified.manifest.tensors}
    for kind in ("gate", "up"):
        assert shares.pop(f"1.mlp.{kind}_proj.weight") == pytest.approx(0.65, abs=1e-3)
        assert max(shares[f"{layer}.mlp.{kind}_proj.weight"] for layer in (0, 2)) < 0.6


def test_without_reconstruction_what_stays_keeps_its_value(tiny: Tiny, store: CheckpointStore) -> None:
    before = weights(tiny())
    with prune(tiny(), store, STEP | {"reconstruct": False}) as modified:
        after = weights(modified.path)
    for name, weight in after.items():
        assert torch.equal(weight[weight != 0], before[name][weight != 0]), name


def test_layers_and_modules_limit_what_is_pruned(tiny: Tiny, store: CheckpointStore) -> None:
    with prune(tiny(), store, STEP | {"layers": [1], "modules": ["mlp"]}) as modified:
        names = {change.name for change in modified.manifest.tensors}
    assert names == {f"model.layers.1.mlp.{kind}_proj.weight" for kind in ("gate", "up", "down")}


def test_a_block_is_given_what_pruned_ones_give_and_is_to_give_what_the_reference_has_there(
    tiny: Tiny, store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By transformers' hidden states of the result and of the reference; of the last they show the normed ones."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    inner = pruning.reconstruct

    def told(call: Any, trained: Any, fetch: Any, *arguments: Any, **options: Any) -> list[float]:
        seen.append(fetch(torch.arange(8)))
        return inner(call, trained, fetch, *arguments, **options)

    def states(folder: Path) -> tuple[torch.Tensor, ...]:
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.bfloat16, attn_implementation=attention_of(folder)
        )
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


def test_prices_behind_scaled_channels_are_those_of_the_model_that_is_the_same_without(
    tiny: Tiny, copy: Copy, store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    assert divergence(tiny("qwen2"), folder, text(None).tokens_NL) == 0
    found: list[dict[str, torch.Tensor]] = []
    inner = pruning.gather

    def told(*arguments: Any, **options: Any) -> Any:
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


def test_the_same_inputs_give_the_same_weights_and_another_seed_does_not(tiny: Tiny, tmp_path: Path) -> None:
    found = []
    for turn, seed in enumerate([4, 4, 5]):
        with prune(tiny(), CheckpointStore(tmp_path / str(turn), 10**9), STEP | {"seed": seed}) as modified:
            found.append(modified.fingerprint)
    assert found[0] == found[1] != found[2]


def test_it_does_less_harm_than_wanda_and_recovery_less_again(tiny: Tiny, store: CheckpointStore) -> None:
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
        recipe = RECIPE.validate_python([step])
        with apply(inspect(folder), recipe, store=store, calibration=lambda _: fitted) as modified:
            harm[label] = divergence(folder, modified.path, tokens[64:])
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


def test_a_recovery_that_does_not_help_on_windows_that_it_has_not_seen_is_not_kept(
    tiny: Tiny, store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = STEP | {"reconstruct": False}
    monkeypatch.setattr(recovery, "RATE", 3.0)
    with prune(tiny(), store, bare) as without, prune(tiny(), store, bare | {"recovery_steps": 5}) as after:
        figures = after.manifest.steps[-1].figures
        assert figures["recovery_kl_after_nats"] == figures["recovery_kl_before_nats"]
        assert any("recovery did not help" in warning for warning in after.manifest.steps[-1].warnings)
        expected = weights(without.path)
        for name, weight in weights(after.path).items():
            assert torch.equal(weight, expected[name]), name


def test_it_composes_with_quantization_in_either_order(tiny: Tiny, store: CheckpointStore) -> None:
    rtn = {"type": "quantize.rtn", "bits": 4, "group_size": 32}
    with prune(tiny(), store, STEP, rtn) as modified:
        assert modified.manifest.sparsity is not None
        assert modified.manifest.sparsity >= 0.499
    with prune(tiny(), store, rtn, STEP) as modified:
        assert modified.manifest.sparsity is not None
        assert modified.manifest.sparsity >= 0.499


def test_after_layers_went_it_keeps_close_to_what_is_left_and_says_so(tiny: Tiny, store: CheckpointStore) -> None:
    with prune(tiny(), store, {"type": "prune.layers", "layers": [1]}, STEP) as modified:
        assert any("shape" in warning for warning in modified.manifest.steps[1].warnings)


@pytest.mark.parametrize(("windows", "warned"), [(4, False), (3, True)])
def test_fewer_tokens_than_a_layer_has_inputs_are_warned_of(
    tiny: Tiny, store: CheckpointStore, windows: int, *, warned: bool
) -> None:
    def short(step: Calibrated) -> CalibrationText:
        found = text(step)
        return CalibrationText(found.tokens_NL[:windows], f"first {windows}", windows, windows)

    with apply(inspect(tiny()), RECIPE.validate_python([STEP]), store=store, calibration=short) as modified:
        told = [one for one in modified.manifest.steps[-1].warnings if "second moment is singular" in one]
    assert bool(told) is warned
    assert not warned or told[0].startswith("96 calibration tokens are fewer than the 128 inputs of the widest layer")


@pytest.mark.parametrize(
    ("kind", "step", "pointer"),
    [
        ("llama", {"modules": ["embed_tokens"]}, "/candidate/recipe/0/modules"),
        ("mixtral", {}, "/candidate/recipe/0/type"),
    ],
)
def test_what_cannot_be_pruned_is_refused_before_anything_is_read(
    tiny: Tiny, store: CheckpointStore, kind: str, step: dict[str, Any], pointer: str
) -> None:
    with pytest.raises(HemostatError) as caught:
        prune(tiny(kind), store, STEP | step)
    assert caught.value.code == ErrorCode.RECIPE_NOT_APPLICABLE
    assert caught.value.pointer == pointer


def test_a_pattern_that_does_not_divide_is_refused(tiny: Tiny, store: CheckpointStore) -> None:
    with pytest.raises(HemostatError) as caught:
        prune(tiny(), store, STEP | {"sparsity": None, "pattern": "2:5"})
    assert caught.value.code == ErrorCode.PATTERN_MISMATCH
    assert caught.value.pointer == "/candidate/recipe/0/pattern"


def test_a_model_whose_activations_overflow_is_refused(copy: Copy, store: CheckpointStore) -> None:
    folder = copy("llama")
    file = folder / "model.safetensors"
    tensors = load_file(file)
    for name in tensors:
        if "mlp" in name:
            tensors[name] = tensors[name] * 1e30
    assert all(float(tensor.abs().max()) < inf for tensor in tensors.values())
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(HemostatError) as caught:
        prune(folder, store, STEP)
    assert caught.value.code == ErrorCode.ACTIVATIONS_NOT_FINITE


def test_cancelling_leaves_nothing(tiny: Tiny, store: CheckpointStore, tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    phases: list[str] = []

    def progress(phase: str, _done: int, _total: int) -> None:
        phases.append(phase)

    def check() -> None:
        if "recovery" in phases:
            raise StoppedError

    with pytest.raises(StoppedError):
        prune(tiny(), store, STEP | {"recovery_steps": 50}, progress=progress, check_cancelled=check)
    assert {"forward", "fisher", "divergence gradients", "prune", "recovery"} <= set(phases)
    assert not list((tmp_path / "store").glob("**/model.safetensors"))


def test_final_states_of_the_result_are_finite(tiny: Tiny, store: CheckpointStore) -> None:
    with prune(tiny("gemma2"), store, STEP) as modified:
        info = inspect(modified.path)
        with open_tensors(info) as reader, torch.no_grad():
            skeleton = Skeleton(info, reader.read)
            hidden = torch.randn(2, info.hidden_size, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
            assert bool(torch.isfinite(logits(skeleton, hidden)).all())


def test_layers_that_moved_are_not_held_to_those_of_their_number(tiny: Tiny, store: CheckpointStore) -> None:
    """One layer dropped and another repeated: the shapes are the reference's, the layers are not. Pruned as if the
    model were its own reference."""
    moved = [{"type": "prune.layers", "layers": [0]}, {"type": "extend.duplicate", "layers": [1]}]
    with (
        prune(tiny(), store, *moved, STEP) as modified,
        prune(tiny(), store, *moved) as wounded,
        prune(wounded.path, store, STEP) as alone,
    ):
        assert "order of its layers" in modified.manifest.steps[-1].warnings[0]
        ours, theirs = weights(modified.path), weights(alone.path)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_lost_attempt_is_gone_on_with_as_if_it_had_not_been(
    tiny: Tiny, tmp_path: Path, store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resumption, "EVERY_S", 0.0)
    monkeypatch.setattr(resumption, "_REST", 0)
    step = STEP | {"reconstruct": False, "recovery_steps": 5}

    class LostError(Exception):
        pass

    def lose(phase: str, done: int, total: int) -> None:
        if (phase, done) == ("recovery", 3):
            raise LostError

    with pytest.raises(LostError):
        prune(tiny(), store, step, progress=lose, resume=tmp_path / "training")
    assert len(list((tmp_path / "training").iterdir())) == 1
    told: list[tuple[str, int]] = []

    def tell(phase: str, done: int, total: int) -> None:
        told.append((phase, done))

    with (
        prune(tiny(), store, step, progress=tell, resume=tmp_path / "training") as found,
        prune(tiny(), CheckpointStore(tmp_path / "through", 10**9), step) as through,
    ):
        assert [done for phase, done in told if phase == "recovery"] == [3, 4]
        assert found.fingerprint == through.fingerprint
        assert found.manifest.steps[-1].figures == through.manifest.steps[-1].figures
    assert list((tmp_path / "training").iterdir()) == []
