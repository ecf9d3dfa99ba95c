import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import CheckpointInfo, fingerprint, inspect
from app.recipes.recipe import Recipe
from tests.support.copies import Copy, edit_json
from workers.surgery.manifest import MANIFEST, Manifest
from workers.surgery.modified import Modified
from workers.surgery.prune_magnitude import prune_matrix, prune_pattern, prune_rows
from workers.surgery.quantize_rtn import quantize
from workers.surgery.recipe import apply
from workers.surgery.store import RECORD, CheckpointStore

Tiny = Callable[..., Path]
RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)
RTN = {"type": "quantize.rtn", "bits": 4, "group_size": 32}
PRUNE = {"type": "prune.magnitude", "sparsity": 0.5}


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "store", 10**9)


def operate(folder: Path, store: CheckpointStore, *steps: dict[str, Any], **options: Any) -> Modified:
    return apply(inspect(folder), RECIPE.validate_python(steps), store=store, **options)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


def is_linear(name: str) -> bool:
    return name.endswith((".w1.weight", ".w2.weight", ".w3.weight", "_proj.weight"))


def rtn(weight: torch.Tensor) -> torch.Tensor:
    return quantize(weight, bits=4, group_size=32, symmetric=False)


# ---- what is changed


@pytest.mark.parametrize("kind", ["llama", "llama-untied", "qwen2", "gemma2", "granite", "mixtral"])
def test_linear_layers_are_changed_and_nothing_else(tiny: Tiny, store: CheckpointStore, kind: str) -> None:
    before = weights(tiny(kind))
    with operate(tiny(kind), store, RTN) as modified:
        after = weights(modified.path)
    assert after.keys() == before.keys()
    changed = 0
    for name, weight in before.items():
        assert after[name].dtype == weight.dtype
        expected = rtn(weight) if is_linear(name) else weight
        assert torch.equal(after[name], expected), name
        changed += not torch.equal(after[name], weight)
    assert changed == len(modified.manifest.tensors) == sum(map(is_linear, before))


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (PRUNE, lambda w: prune_matrix(w, 0.5)),
        (PRUNE | {"scope": "row"}, lambda w: prune_rows(w, 0.5)),
        ({"type": "prune.magnitude", "pattern": "2:4"}, lambda w: prune_pattern(w, 2, 4)),
        (RTN | {"bits": 3, "group_size": None}, lambda w: quantize(w, bits=3, group_size=None, symmetric=False)),
        (RTN | {"symmetric": True}, lambda w: quantize(w, bits=4, group_size=32, symmetric=True)),
    ],
)
def test_each_step_is_its_pure_function(
    tiny: Tiny, store: CheckpointStore, step: dict[str, Any], expected: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    before = weights(tiny())
    with operate(tiny(), store, step | {"modules": ["up_proj"], "layers": [1]}) as modified:
        after = weights(modified.path)
    for name, weight in before.items():
        touched = name == "model.layers.1.mlp.up_proj.weight"
        assert torch.equal(after[name], expected(weight) if touched else weight)


def test_steps_are_taken_in_order(tiny: Tiny, store: CheckpointStore) -> None:
    name = "model.layers.0.mlp.down_proj.weight"
    weight = weights(tiny())[name]
    with operate(tiny(), store, PRUNE, RTN) as modified:
        assert torch.equal(weights(modified.path)[name], rtn(prune_matrix(weight, 0.5)))
        assert modified.manifest.tensors[0].steps == (0, 1)
    with operate(tiny(), store, RTN, PRUNE) as other:
        assert torch.equal(weights(other.path)[name], prune_matrix(rtn(weight), 0.5))
        assert other.fingerprint != modified.fingerprint


def test_steps_of_different_reach(tiny: Tiny, store: CheckpointStore) -> None:
    before = weights(tiny())
    with operate(tiny(), store, RTN | {"modules": ["mlp"]}, PRUNE | {"layers": [0]}) as modified:
        after = weights(modified.path)
    for name, weight in before.items():
        expected = rtn(weight) if ".mlp." in name else weight
        if "layers.0" in name and is_linear(name):
            expected = prune_matrix(expected, 0.5)
        assert torch.equal(after[name], expected), name
    steps = {change.name: change.steps for change in modified.manifest.tensors}
    assert steps["model.layers.0.mlp.up_proj.weight"] == (0, 1)
    assert steps["model.layers.1.mlp.up_proj.weight"] == (0,)
    assert steps["model.layers.0.self_attn.q_proj.weight"] == (1,)
    assert "model.layers.1.self_attn.q_proj.weight" not in steps


@pytest.mark.parametrize("first", [(), (RTN,), (RTN, PRUNE | {"scope": "global", "sparsity": 0.2})])
def test_a_global_share_is_taken_of_what_the_steps_before_left(
    tiny: Tiny, store: CheckpointStore, first: tuple[dict[str, Any], ...]
) -> None:
    with operate(tiny(), store, *first) as before:
        earlier = {name: weight for name, weight in weights(before.path).items() if is_linear(name)}
    with operate(tiny(), store, *first, PRUNE | {"scope": "global"}) as modified:
        after = weights(modified.path)
        order = [change.name for change in modified.manifest.tensors]
    flat = torch.cat([earlier[name].flatten() for name in order]).float()
    keep = torch.ones(len(flat), dtype=torch.bool)
    keep[flat.abs().argsort(stable=True)[: len(flat) // 2]] = False
    expected = flat * keep
    assert torch.equal(torch.cat([after[name].flatten() for name in order]).float(), expected)


def test_a_named_head_is_changed_alone_where_it_stands_alone(tiny: Tiny, store: CheckpointStore) -> None:
    before = weights(tiny("llama-untied"))
    with operate(tiny("llama-untied"), store, RTN | {"modules": ["lm_head"]}) as modified:
        after = weights(modified.path)
    assert [name for name in before if not torch.equal(before[name], after[name])] == ["lm_head.weight"]
    assert (modified.manifest.head_changed, modified.manifest.embedding_changed) == (True, False)


@pytest.mark.parametrize("kind", ["lm_head", "embed_tokens"])
def test_a_tied_head_and_embedding_are_changed_together(tiny: Tiny, store: CheckpointStore, kind: str) -> None:
    before = weights(tiny())
    with operate(tiny(), store, RTN | {"modules": [kind]}) as modified:
        after = weights(modified.path)
        model = AutoModelForCausalLM.from_pretrained(modified.path)
        assert inspect(modified.path).tied
    name = "model.embed_tokens.weight"
    assert after.keys() == before.keys()
    assert torch.equal(after[name], rtn(before[name]))
    assert torch.equal(model.lm_head.weight, after[name])
    assert torch.equal(model.get_input_embeddings().weight, after[name])
    assert modified.manifest.head_changed
    assert modified.manifest.embedding_changed


def test_a_tied_model_s_second_copy_of_the_head_is_left_out(copy: Copy, store: CheckpointStore) -> None:
    folder = copy()
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folder / "model.safetensors")
    with operate(folder, store, RTN | {"modules": ["lm_head"]}) as modified:
        assert "lm_head.weight" not in weights(modified.path)
        assert inspect(modified.path).tied


def test_the_head_of_default_recipes_is_untouched(tiny: Tiny, store: CheckpointStore) -> None:
    with operate(tiny("llama-untied"), store, RTN) as modified:
        assert not modified.manifest.head_changed
        assert not modified.manifest.embedding_changed


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_other_dtypes_stay_what_they_are(copy: Copy, store: CheckpointStore, dtype: torch.dtype) -> None:
    folder = copy()
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(folder / "model.safetensors").items()}
    tensors["model.norm.weight"] = tensors["model.norm.weight"].float()
    save_file(tensors, folder / "model.safetensors")
    with operate(folder, store, RTN) as modified:
        after = weights(modified.path)
    for name, weight in tensors.items():
        assert after[name].dtype == weight.dtype
        assert torch.equal(after[name], rtn(weight) if is_linear(name) else weight)


# ---- the result


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2", "mixtral"])
def test_the_result_is_a_whole_checkpoint(tiny: Tiny, store: CheckpointStore, kind: str) -> None:
    with operate(tiny(kind), store, RTN) as modified:
        info = inspect(modified.path)
        assert info.scheme == "bf16"
        model = AutoModelForCausalLM.from_pretrained(modified.path)
        tokenizer = AutoTokenizer.from_pretrained(modified.path)
        assert torch.isfinite(model(torch.tensor([tokenizer.encode("The quick brown fox")])).logits).all()
        assert (modified.path / "config.json").read_bytes() == (tiny(kind) / "config.json").read_bytes()
        assert tokenizer.chat_template


def test_small_shards_hold_the_same_weights(tiny: Tiny, tmp_path: Path) -> None:
    whole = operate(tiny(), CheckpointStore(tmp_path / "a", 10**9), RTN)
    parts = operate(tiny(), CheckpointStore(tmp_path / "b", 10**9), RTN, shard_bytes=50_000)
    assert len(inspect(parts.path).files) > 3
    assert all((parts.path / file).stat().st_size < 60_000 for file in inspect(parts.path).files)
    one, other = weights(whole.path), weights(parts.path)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    with operate(parts.path, CheckpointStore(tmp_path / "c", 10**9), PRUNE | {"scope": "global"}) as again:
        assert len(weights(again.path)) == len(one)


def test_twice_is_the_same_to_the_byte(tiny: Tiny, tmp_path: Path) -> None:
    recipe = (PRUNE | {"scope": "global"}, RTN)
    made = [operate(tiny(), CheckpointStore(tmp_path / name, 10**9), *recipe) for name in ("a", "b")]
    assert made[0].fingerprint == made[1].fingerprint
    for file in sorted(made[0].path.iterdir()):
        if file.name not in (MANIFEST, RECORD):  # these tell how long it took
            assert file.read_bytes() == (made[1].path / file.name).read_bytes(), file.name


def test_it_is_made_once(tiny: Tiny, store: CheckpointStore) -> None:
    with operate(tiny(), store, RTN) as first, operate(tiny(), store, RTN | {"symmetric": False}) as second:
        assert (first.built, second.built) == (True, False)
        assert first.path == second.path
        assert first.manifest == second.manifest
    assert len(store.keys) == 1
    with operate(tiny(), store, RTN | {"bits": 5}) as third, operate(tiny("qwen2"), store, RTN) as fourth:
        assert len({first.path, third.path, fourth.path}) == 3


def test_the_fingerprint_is_that_of_the_folder(tiny: Tiny, store: CheckpointStore) -> None:
    with operate(tiny(), store, RTN) as modified:
        assert modified.fingerprint == fingerprint(modified.path) != fingerprint(tiny())
        assert modified.manifest.source_fingerprint == fingerprint(tiny())


def test_the_empty_recipe_is_the_source_itself(tiny: Tiny, store: CheckpointStore) -> None:
    with operate(tiny(), store) as modified:
        assert modified.path == tiny()
        assert modified.fingerprint == fingerprint(tiny())
        assert modified.manifest.tensors == ()
        assert modified.manifest.recipe_fingerprint is None
        assert modified.manifest.model_bits_per_weight == 16
        assert modified.manifest.model_nominal_bytes == 2 * inspect(tiny()).parameters
    assert store.keys == ()
    assert tiny().is_dir()


# ---- the manifest


def test_the_manifest_says_what_was_changed(tiny: Tiny, store: CheckpointStore) -> None:
    before = weights(tiny())
    with operate(tiny(), store, PRUNE | {"scope": "row"}, RTN) as modified:
        after = weights(modified.path)
        written = Manifest.model_validate_json((modified.path / MANIFEST).read_text())
    manifest = modified.manifest
    assert manifest == written
    assert [step["type"] for step in manifest.recipe] == ["prune.magnitude", "quantize.rtn"]
    bits = 4 + 20 / 32
    error = norm = 0.0
    for change in manifest.tensors:
        old, new = before[change.name].double(), after[change.name].double()
        assert (change.shape, change.dtype, change.steps) == (tuple(old.shape), "BF16", (0, 1))
        assert change.bits_per_weight == bits
        assert change.nominal_bytes == old.numel() * bits / 8
        assert change.nominal_sparsity == 0.5
        assert change.zeros == int((new == 0).sum()) >= old.numel() // 2
        assert change.reconstruction_error == pytest.approx(float((old - new).norm() / old.norm()), rel=1e-9)
        error += float((old - new).square().sum())
        norm += float(old.square().sum())
    assert manifest.bits_per_weight == bits
    assert manifest.reconstruction_error == pytest.approx((error / norm) ** 0.5, rel=1e-9)
    assert manifest.sparsity is not None
    assert manifest.sparsity >= 0.5
    elements = sum(change.elements for change in manifest.tensors)
    rest = inspect(tiny()).parameters - elements
    assert manifest.model_nominal_bytes == elements * bits / 8 + rest * 2
    assert manifest.model_bits_per_weight == pytest.approx((elements * bits + rest * 16) / (elements + rest))


def test_pruning_alone_takes_no_bits_away(tiny: Tiny, store: CheckpointStore) -> None:
    with operate(tiny(), store, PRUNE) as modified:
        assert {change.bits_per_weight for change in modified.manifest.tensors} == {16}
        assert all(change.sparsity == 0.5 for change in modified.manifest.tensors)
        assert modified.manifest.sparsity == modified.manifest.nominal_sparsity == 0.5


def test_zeros_that_were_asked_for_stand_beside_those_that_are_there(tiny: Tiny, store: CheckpointStore) -> None:
    """Two bits leave zeros that no step asked for; where a layer alone is pruned, a third of the share is."""
    coarse = RTN | {"bits": 2}
    with operate(tiny(), store, coarse) as modified:
        assert modified.manifest.nominal_sparsity is None
        assert (modified.manifest.sparsity or 0) > 0.1
    with operate(tiny(), store, PRUNE | {"layers": [1]}, coarse) as modified:
        manifest = modified.manifest
    assert manifest.nominal_sparsity == pytest.approx(0.5 / 3)
    assert manifest.sparsity == sum(one.zeros for one in manifest.tensors) / sum(
        one.elements for one in manifest.tensors
    )
    assert manifest.sparsity > 0.5 / 3


def test_a_checkpoint_of_an_older_manifest_tells_the_zeros_that_were_asked_for_too(
    tiny: Tiny, store: CheckpointStore
) -> None:
    with operate(tiny(), store, PRUNE) as modified:
        made = modified.manifest
        file = modified.path / MANIFEST
        older = json.loads(file.read_text())
        del older["nominal_sparsity"]
        file.write_text(json.dumps(older).ljust(file.stat().st_size))  # the store knows its files by their sizes
    with operate(tiny(), store, PRUNE) as found:
        assert not found.built
        assert found.manifest == made


def test_tensors_come_in_the_model_s_order(tiny: Tiny, store: CheckpointStore) -> None:
    with operate(tiny(), store, RTN) as modified:
        layers = [int(change.name.split(".")[2]) for change in modified.manifest.tensors]
    assert layers == sorted(layers)


# ---- progress, cancelling, refusals


def test_progress_counts_tensors(tiny: Tiny, store: CheckpointStore) -> None:
    told: list[tuple[str, int, int]] = []
    operate(tiny(), store, PRUNE | {"scope": "global"}, progress=lambda *step: told.append(step)).release()
    total = len(weights(tiny()))
    assert told[0] == ("thresholds", 0, 21)
    assert told[-1] == ("surgery", total, total)
    done = [step[1] for step in told if step[0] == "surgery"]
    assert done == list(range(total + 1))


def test_it_can_be_cancelled_at_any_tensor_and_leaves_nothing(tiny: Tiny, store: CheckpointStore) -> None:
    class StopError(Exception):
        pass

    calls = 0
    for after in (0, 5, 30, 45):
        left = after

        def stop() -> None:
            nonlocal left, calls
            calls += 1
            left -= 1
            if left < 0:
                raise StopError

        fingerprint(tiny())
        with pytest.raises(StopError):
            operate(tiny(), store, PRUNE | {"scope": "global"}, check_cancelled=stop)
        assert [path.name for path in store.root.rglob("*")] == [".locks"]
    assert calls == 1 + 6 + 31 + 46


@pytest.mark.parametrize("name", ["model.layers.1.mlp.up_proj.weight", "model.norm.weight"])
def test_a_source_with_nan_is_refused_whatever_tensor_it_is_in(
    copy: Copy,
    store: CheckpointStore,
    name: str,
) -> None:
    folder = copy()
    tensors = load_file(folder / "model.safetensors")
    tensors[name].view(-1)[3] = float("nan")
    save_file(tensors, folder / "model.safetensors")
    for step in (RTN, PRUNE | {"scope": "global"}):
        with pytest.raises(HemostatError) as caught:
            operate(folder, store, step)
        assert caught.value.code is ErrorCode.CHECKPOINT_NOT_FINITE
        assert name in caught.value.detail
    assert store.keys == ()


def test_weights_beyond_float32_are_refused(copy: Copy, store: CheckpointStore) -> None:
    folder = copy()
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][0, :2] = torch.tensor([3e38, -3e38])
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(HemostatError) as caught:
        operate(folder, store, RTN)
    assert caught.value.code is ErrorCode.RECIPE_NOT_APPLICABLE
    assert "model.layers.0.mlp.up_proj.weight" in caught.value.detail


@pytest.mark.parametrize(
    ("step", "code", "pointer"),
    [
        (RTN | {"group_size": 128}, ErrorCode.GROUP_SIZE_MISMATCH, "/candidate/recipe/0/group_size"),
        (RTN | {"layers": [7]}, ErrorCode.UNKNOWN_MODULE, "/candidate/recipe/0/layers/0"),
        ({"type": "prune.magnitude", "pattern": "2:3"}, ErrorCode.PATTERN_MISMATCH, "/candidate/recipe/0/pattern"),
    ],
)
def test_what_does_not_fit_is_refused_here_too(
    tiny: Tiny, store: CheckpointStore, step: dict[str, Any], code: ErrorCode, pointer: str
) -> None:
    with pytest.raises(HemostatError) as caught:
        operate(tiny(), store, step)
    assert (caught.value.code, caught.value.pointer) == (code, pointer)
    assert store.keys == ()


def test_a_dtype_that_cannot_be_copied_is_refused(copy: Copy, store: CheckpointStore) -> None:
    folder = copy()
    edit_json(folder / "config.json", architectures=["NovelForCausalLM"])
    tensors = load_file(folder / "model.safetensors")
    tensors["model.buffer"] = torch.zeros(2, dtype=torch.uint16)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(HemostatError) as caught:
        operate(folder, store, RTN)
    assert caught.value.code is ErrorCode.CHECKPOINT_UNSUPPORTED


def test_an_evicted_result_is_made_again(tiny: Tiny, tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "store", 0)
    first = operate(tiny(), store, RTN)
    found: CheckpointInfo = inspect(first.path)
    first.release()
    assert not first.path.exists()
    with operate(tiny(), store, RTN) as second:
        assert second.built
        assert inspect(second.path).tensors == found.tensors
        assert json.loads((second.path / "config.json").read_text())["vocab_size"] == 320
