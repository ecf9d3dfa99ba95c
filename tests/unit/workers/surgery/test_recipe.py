import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from app.contracts.errors import ErrorCode
from app.models.checkpoint import fingerprint, inspect
from tests.support.copies import edit_json
from tests.support.pruning import operate, rewrite, weights
from tests.support.refusals import refusal_of
from tests.support.stopping import Stop, StoppedError
from workers.surgery.manifest import MANIFEST, Manifest
from workers.surgery.quantize_rtn import quantize
from workers.surgery.store import RECORD, CheckpointStore

RTN = {"type": "quantize.rtn", "bits": 4, "group_size": 32}
PRUNE = {"type": "prune.magnitude", "sparsity": 0.5}


def is_linear(name):
    return name.endswith((".w1.weight", ".w2.weight", ".w3.weight", "_proj.weight"))


def rtn(weight):
    return quantize(weight, bits=4, group_size=32, symmetric=False)


# ---- what is changed


@pytest.mark.parametrize("kind", ["llama", "llama-untied", "qwen2", "gemma2", "granite", "mixtral"])
def test_linear_layers_are_changed_and_nothing_else(tiny, store, kind):
    before = weights(tiny(kind))
    with operate(tiny(kind), store, RTN) as modified:
        after = weights(modified.path)
        assert inspect(modified.path).scheme == "bf16"
        tokenizer = AutoTokenizer.from_pretrained(modified.path)
        tokens = torch.tensor([tokenizer.encode("The quick brown fox")])
        assert torch.isfinite(AutoModelForCausalLM.from_pretrained(modified.path)(tokens).logits).all()
        assert (modified.path / "config.json").read_bytes() == (tiny(kind) / "config.json").read_bytes()
        assert tokenizer.chat_template
    assert after.keys() == before.keys()
    changed = 0
    for name, weight in before.items():
        assert after[name].dtype == weight.dtype
        expected = rtn(weight) if is_linear(name) else weight
        assert torch.equal(after[name], expected), name
        changed += not torch.equal(after[name], weight)
    assert changed == len(modified.manifest.tensors) == sum(map(is_linear, before))


@pytest.mark.parametrize(
    ("step", "expected", "bits", "share"),
    [
        (
            RTN | {"bits": 3, "group_size": None},
            lambda w: quantize(w, bits=3, group_size=None, symmetric=False),
            3 + 19 / 64,
            None,
        ),
        (RTN | {"symmetric": True}, lambda w: quantize(w, bits=4, group_size=32, symmetric=True), 4.5, None),
    ],
)
def test_each_step_is_its_pure_function(tiny, store, step, expected, bits, share):
    before = weights(tiny())
    with operate(tiny(), store, step | {"modules": ["up_proj"], "layers": [1]}) as modified:
        after = weights(modified.path)
    for name, weight in before.items():
        touched = name == "model.layers.1.mlp.up_proj.weight"
        assert torch.equal(after[name], expected(weight) if touched else weight)
    manifest = modified.manifest
    assert (manifest.bits_per_weight, manifest.nominal_sparsity) == (bits, share)
    assert share is None or manifest.sparsity == share


@pytest.mark.parametrize("first", [(), (RTN, PRUNE | {"scope": "global", "sparsity": 0.2})])
def test_a_global_share_is_taken_of_what_the_steps_before_left(tiny, store, first):
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


def test_a_named_head_is_changed_alone_where_it_stands_alone(tiny, store):
    before = weights(tiny("llama-untied"))
    with operate(tiny("llama-untied"), store, RTN | {"modules": ["lm_head"]}) as modified:
        after = weights(modified.path)
    assert [name for name in before if not torch.equal(before[name], after[name])] == ["lm_head.weight"]


@pytest.mark.parametrize("kind", ["lm_head", "embed_tokens"])
def test_a_tied_head_and_embedding_are_changed_together(tiny, store, kind):
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


def test_a_tied_model_s_second_copy_of_the_head_is_left_out(copy, store):
    folder = rewrite(copy(), lambda of: of.update({"lm_head.weight": of["model.embed_tokens.weight"].clone()}))
    with operate(folder, store, RTN | {"modules": ["lm_head"]}) as modified:
        assert "lm_head.weight" not in weights(modified.path)
        assert inspect(modified.path).tied


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_other_dtypes_stay_what_they_are(copy, store, dtype):
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


def test_small_shards_hold_the_same_weights(tiny, tmp_path):
    whole = operate(tiny(), CheckpointStore(tmp_path / "a", 10**9), RTN)
    parts = operate(tiny(), CheckpointStore(tmp_path / "b", 10**9), RTN, shard_bytes=50_000)
    assert len(inspect(parts.path).files) > 3
    assert all((parts.path / file).stat().st_size < 60_000 for file in inspect(parts.path).files)
    one, other = weights(whole.path), weights(parts.path)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    with operate(parts.path, CheckpointStore(tmp_path / "c", 10**9), PRUNE | {"scope": "global"}) as again:
        assert len(weights(again.path)) == len(one)


def test_twice_is_the_same_to_the_byte(tiny, tmp_path):
    recipe = (PRUNE | {"scope": "global"}, RTN)
    made = [operate(tiny(), CheckpointStore(tmp_path / name, 10**9), *recipe) for name in ("a", "b")]
    assert made[0].fingerprint == made[1].fingerprint
    for file in sorted(made[0].path.iterdir()):
        if file.name not in (MANIFEST, RECORD):  # these tell how long it took
            assert file.read_bytes() == (made[1].path / file.name).read_bytes(), file.name


def test_it_is_made_once(tiny, store):
    with operate(tiny(), store, RTN) as first, operate(tiny(), store, RTN | {"symmetric": False}) as second:
        assert (first.built, second.built) == (True, False)
        assert first.fingerprint == fingerprint(first.path) != fingerprint(tiny())
        assert first.manifest.source_fingerprint == fingerprint(tiny())
        assert first.path == second.path
        assert first.manifest == second.manifest
    assert len(store.keys) == 1
    with operate(tiny(), store, RTN | {"bits": 5}) as third, operate(tiny("qwen2"), store, RTN) as fourth:
        assert len({first.path, third.path, fourth.path}) == 3


def test_the_empty_recipe_is_the_source_itself(tiny, store):
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


def test_the_manifest_says_what_was_changed(tiny, store):
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
    assert manifest.sparsity >= 0.5
    elements = sum(change.elements for change in manifest.tensors)
    rest = inspect(tiny()).parameters - elements
    assert manifest.model_nominal_bytes == elements * bits / 8 + rest * 2
    assert manifest.model_bits_per_weight == pytest.approx((elements * bits + rest * 16) / (elements + rest))


# ---- progress, cancelling, refusals


def test_it_can_be_cancelled_at_any_tensor_and_leaves_nothing(tiny, store):
    fingerprint(tiny())
    for at in (1, 6, 31, 46):
        stop = Stop(at)
        with pytest.raises(StoppedError):
            operate(tiny(), store, PRUNE | {"scope": "global"}, check_cancelled=stop)
        assert stop.calls == at
        assert [path.name for path in store.root.rglob("*")] == [".locks"]


@pytest.mark.parametrize("name", ["model.layers.1.mlp.up_proj.weight", "model.norm.weight"])
def test_a_source_with_nan_is_refused_whatever_tensor_it_is_in(copy, store, name):
    folder = rewrite(copy(), lambda of: of[name].view(-1)[3:4].fill_(float("nan")))
    for step in (RTN, PRUNE | {"scope": "global"}):
        error = refusal_of(operate, folder, store, step)
        assert error.code is ErrorCode.CHECKPOINT_NOT_FINITE
        assert name in error.detail
    assert store.keys == ()


def test_weights_beyond_float32_are_refused(copy, store):
    name = "model.layers.0.mlp.up_proj.weight"
    folder = rewrite(copy(), lambda of: of[name][0, :2].copy_(torch.tensor([3e38, -3e38])))
    error = refusal_of(operate, folder, store, RTN)
    assert error.code is ErrorCode.RECIPE_NOT_APPLICABLE
    assert name in error.detail


def test_a_dtype_that_cannot_be_copied_is_refused(copy, store):
    folder = rewrite(copy(), lambda of: of.update({"model.buffer": torch.zeros(2, dtype=torch.uint16)}))
    edit_json(folder / "config.json", architectures=["NovelForCausalLM"])
    assert refusal_of(operate, folder, store, RTN).code is ErrorCode.CHECKPOINT_UNSUPPORTED
