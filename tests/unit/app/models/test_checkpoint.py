import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import fingerprint, inspect
from tests.support.copies import edit_json

INCOMPLETE, CORRUPT = ErrorCode.CHECKPOINT_INCOMPLETE, ErrorCode.CHECKPOINT_CORRUPT
SHAPE, UNSAFE = ErrorCode.CHECKPOINT_SHAPE_MISMATCH, ErrorCode.CHECKPOINT_UNSAFE
UNSUPPORTED, NOT_FOUND = ErrorCode.CHECKPOINT_UNSUPPORTED, ErrorCode.CHECKPOINT_NOT_FOUND
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def refusal(path):
    with pytest.raises(HemostatError) as caught:
        inspect(path, pointer="/candidate/model")
    assert caught.value.pointer == "/candidate/model"
    assert caught.value.hint
    return caught.value


def refused(path, code):
    error = refusal(path)
    assert error.code is code
    return error


def rewrite(folder, change):
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def split(folder, parts=2):
    """The same weights in several files and their index, as large models come."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(tensors)
    weight_map = {}
    for part in range(parts):
        file = f"model-{part + 1:05}-of-{parts:05}.safetensors"
        mine = names[part::parts]
        save_file({name: tensors[name] for name in mine}, folder / file)
        weight_map |= dict.fromkeys(mine, file)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def packed(folder, bits=4, group=32, **more):
    """Every linear layer becomes int32 words and scales, of the right shapes; what they hold does not matter here."""

    def pack(tensors):
        for name in [name for name in tensors if name.endswith("_proj.weight")]:
            out, into = tensors.pop(name).shape
            tensors[f"{name}_packed"] = torch.zeros(out, into * bits // 32, dtype=torch.int32)
            tensors[f"{name}_scale"] = torch.ones(out, into // group, dtype=torch.bfloat16)
            tensors[f"{name}_shape"] = torch.tensor([out, into])

    rewrite(folder, pack)
    weights = {"num_bits": bits, "type": "int", "strategy": "group", "group_size": group, "symmetric": True}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    groups |= {name: {"targets": targets, "weights": weights | other} for name, (targets, other) in more.items()}
    quantization = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": groups}
    edit_json(folder / "config.json", quantization_config=quantization)
    return folder


@pytest.mark.parametrize(
    ("kind", "architecture", "tied"),
    [
        ("llama", "LlamaForCausalLM", True),
        ("llama-untied", "LlamaForCausalLM", False),
        ("qwen2", "Qwen2ForCausalLM", True),
        ("gemma2", "Gemma2ForCausalLM", True),
        ("granite", "GraniteForCausalLM", True),
        ("mixtral", "MixtralForCausalLM", False),
    ],
)
def test_a_sound_checkpoint_is_described(tiny, kind, architecture, tied):
    info = inspect(tiny(kind))
    file = tiny(kind) / WEIGHTS
    assert (info.architecture, info.tied, info.scheme) == (architecture, tied, "bf16")
    assert (info.layers, info.hidden_size, info.vocabulary, info.max_position) == (3, 64, 320, 256)
    assert info.bytes == file.stat().st_size
    assert info.quantization is None
    tensors = load_file(file)
    assert {name: tensor.shape for name, tensor in info.tensors.items()} == {
        name: tuple(tensor.shape) for name, tensor in tensors.items()
    }
    assert info.parameters == sum(tensor.numel() for tensor in tensors.values())


def test_a_checkpoint_in_parts_is_the_same_model(copy):
    whole = inspect(copy())
    parts = inspect(split(copy(name="parts"), 3))
    assert set(parts.tensors) == set(whole.tensors)
    assert parts.files == tuple(f"model-{part:05}-of-00003.safetensors" for part in (1, 2, 3))
    assert parts.bytes == sum((parts.path / file).stat().st_size for file in parts.files)
    (parts.path / INDEX).unlink()
    assert inspect(parts.path).layers == 3


def test_a_folder_is_looked_into_again_only_when_it_changed(copy):
    folder = copy()
    first = inspect(folder)
    assert inspect(folder) is first
    edit_json(folder / "config.json", max_position_embeddings=128)
    assert inspect(folder).max_position == 128


def test_a_folder_of_links_is_followed(copy, tmp_path):
    blobs = copy(name="blobs")
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(file)
    assert inspect(snapshot).tensors == inspect(blobs).tensors
    (blobs / WEIGHTS).unlink()
    refused(snapshot, INCOMPLETE)


def test_no_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    for name in ("none", "file", "x" * 300):
        refused(tmp_path / name, NOT_FOUND)


# ---- each damage, with what is named of it


def without(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def with_config(**changes):
    return lambda folder: edit_json(folder / "config.json", **changes)


def with_tensors(change):
    return lambda folder: rewrite(folder, change)


def parted(then, parts=3):
    return lambda folder: then(split(folder, parts))


def renamed(name):
    return lambda folder: (folder / WEIGHTS).rename(folder / name)


def written(name, text):
    return lambda folder: (folder / name).write_bytes(text.encode("latin-1"))


def promised(folder):
    weight_map = json.loads((folder / INDEX).read_text())["weight_map"]
    edit_json(folder / INDEX, weight_map=weight_map | {"model.extra.weight": "model-00001-of-00003.safetensors"})


def beside_its_parts(folder):
    whole = (folder / WEIGHTS).read_bytes()
    assert len(inspect(split(folder)).files) == 2
    (folder / WEIGHTS).write_bytes(whole)


def truncated(folder):
    os.truncate(folder / WEIGHTS, (folder / WEIGHTS).stat().st_size - 1000)


def in_two_files(folder):
    save_file({"model.norm.weight": torch.ones(64, dtype=torch.bfloat16)}, folder / "other.safetensors")


def changed(name, change):
    return with_tensors(lambda tensors: tensors.update({name: change(tensors[name]).contiguous()}))


def added(name, *shape):
    return with_tensors(lambda tensors: tensors.update({name: torch.zeros(shape, dtype=torch.bfloat16)}))


def of_integers(tensors):
    tensors.update({name: tensor.to(torch.int8) for name, tensor in tensors.items()})


def packed_then(change, **groups):
    return lambda folder: rewrite(packed(folder, **groups), change)


DOWN, UP = "model.layers.2.mlp.down_proj.weight", "model.layers.0.mlp.up_proj.weight"
EXPERT, BIAS = "model.layers.0.block_sparse_moe.experts.3.w2.weight", "model.layers.0.self_attn.q_proj.bias"
SECOND, THIRD = (f"model-0000{part}-of-00003.safetensors" for part in (2, 3))
DAMAGES = [
    ("llama", without("config.json"), INCOMPLETE, ["config.json"]),
    ("llama", without(WEIGHTS), INCOMPLETE, []),
    ("llama", parted(without(SECOND)), INCOMPLETE, [SECOND]),
    ("llama", parted(without(INDEX, THIRD)), INCOMPLETE, [THIRD]),
    ("llama", parted(promised), INCOMPLETE, ["model.extra.weight"]),
    *(
        ("llama", with_tensors(lambda tensors, name=name: tensors.pop(name)), INCOMPLETE, [name])
        for name in ("model.norm.weight", "model.layers.1.mlp.up_proj.weight", "model.embed_tokens.weight")
    ),
    ("llama-untied", with_tensors(lambda tensors: tensors.pop("lm_head.weight")), INCOMPLETE, ["lm_head.weight"]),
    ("llama", with_tensors(lambda tensors: tensors.clear()), INCOMPLETE, []),
    ("llama", beside_its_parts, CORRUPT, [INDEX]),
    ("llama", truncated, CORRUPT, [WEIGHTS, "truncated"]),
    *(("llama", written("config.json", text), CORRUPT, []) for text in ("", "{", "[]", "\xff")),
    *(
        ("llama", with_config(**{field: value}), CORRUPT, [field])
        for field, value in (
            ("num_hidden_layers", "3"),
            ("hidden_size", 0),
            ("max_position_embeddings", -1),
            ("vocab_size", 3.5),
        )
    ),
    ("llama", parted(written(INDEX, '{"weight_map": ["a"]}')), CORRUPT, []),
    ("llama", in_two_files, CORRUPT, ["model.norm.weight"]),
    *(
        (kind, changed(DOWN, lambda tensor: tensor[:, :100]), SHAPE, [DOWN, "[64, 100]", "[64, 128]"])
        for kind in ("llama", "qwen2", "gemma2", "granite")
    ),
    ("mixtral", changed(EXPERT, lambda tensor: tensor.T), SHAPE, [EXPERT]),
    ("llama", with_config(hidden_size=96), SHAPE, ["[320, 64]"]),
    ("llama", with_config(vocab_size=321), SHAPE, ["[321, 64]"]),
    ("llama", with_config(num_hidden_layers=2), SHAPE, ["model.layers.2."]),
    ("llama", with_config(num_key_value_heads=2), SHAPE, ["k_proj"]),
    ("llama", added(BIAS, 64), SHAPE, [BIAS]),
    ("llama", added("lm_head.weight", 320, 32), SHAPE, ["lm_head.weight"]),
    ("llama", with_config(model_type=None), UNSUPPORTED, ["model_type"]),
    ("llama", with_config(model_type=3), UNSUPPORTED, ["model_type"]),
    *(
        ("llama", renamed(name), UNSAFE, [name])
        for name in ("pytorch_model.bin", "model.pt", "weights.pkl", "consolidated.00.pth")
    ),
    ("llama", with_config(auto_map={"AutoModel": "modeling_x.X"}), UNSAFE, ["config.json", "auto_map"]),
    ("llama", with_config(trust_remote_code=True), UNSAFE, ["config.json", "trust_remote_code"]),
    ("llama", with_config(nested=[{"auto_map": {"AutoConfig": "x.X"}}]), UNSAFE, ["config.json", "auto_map"]),
    ("llama", with_config(custom_pipelines={"p": {}}), UNSAFE, ["config.json", "custom_pipelines"]),
    (
        "llama",
        lambda folder: edit_json(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["x.X", None]}),
        UNSAFE,
        ["tokenizer_config.json", "auto_map"],
    ),
    ("llama", written("modeling_novel.py", "print('hello')"), UNSAFE, ["modeling_novel.py"]),
    *(
        ("llama", parted(written(INDEX, json.dumps({"weight_map": {"model.norm.weight": file}}))), UNSAFE, [])
        for file in ("../other/model.safetensors", "/etc/passwd", "model.bin", "sub/x.safetensors")
    ),
    *(
        ("llama", with_config(**{field: value}), UNSUPPORTED, [])
        for field, value in (
            ("architectures", None),
            ("architectures", []),
            ("architectures", ["A", "B"]),
            ("architectures", [3]),
            ("hidden_size", None),
            ("quantization_config", {"quant_method": "gptq", "bits": 4}),
        )
    ),
    ("llama", renamed("model-q4.gguf"), UNSUPPORTED, ["import-gguf"]),
    ("llama", with_tensors(of_integers), UNSUPPORTED, []),
    (
        "llama",
        lambda folder: packed(folder, group_1=(["re:.*k_proj"], {"symmetric": False})),
        UNSUPPORTED,
        ["q_proj, k_proj, v_proj of model.layers.0.self_attn"],
    ),
    ("llama", packed_then(lambda tensors: tensors.pop(f"{UP}_scale")), INCOMPLETE, [f"{UP}_scale"]),
    (
        "llama",
        packed_then(lambda tensors: tensors.update({f"{UP}_packed": tensors[f"{UP}_packed"][:, :-1].contiguous()})),
        SHAPE,
        [f"{UP}_packed"],
    ),
]


def test_every_damage_is_refused_and_named(copy):
    wrong = []
    for number, (kind, damage, code, words) in enumerate(DAMAGES):
        folder = copy(kind, name=f"damaged-{number}")
        damage(folder)
        error = refusal(folder)
        if error.code is not code or not all(word in f"{error.detail} {error.hint}" for word in words):
            wrong.append(f"{number}: {code} with {words}, not {error.code}: {error.detail}")
    assert wrong == []


def test_a_refusal_names_the_model(copy, tmp_path):
    snapshots = tmp_path / "models--somebody--small" / "snapshots"
    snapshots.mkdir(parents=True)
    folder = copy().rename(snapshots / "0f3c")
    (folder / "config.json").unlink()
    assert refused(folder, INCOMPLETE).detail.startswith("checkpoint models--somebody--small: ")
    with pytest.raises(HemostatError, match="checkpoint mine: "):
        inspect(folder, name="mine")


def test_what_harms_nothing_is_taken(copy):
    old, tied, novel, pickled = (copy(name=name) for name in ("old", "tied", "novel", "pickled"))
    added("model.layers.0.self_attn.rotary_emb.inv_freq", 16)(old)
    assert inspect(old).layers == 3
    added("lm_head.weight", 320, 64)(tied)
    assert inspect(tied).tied
    with_config(architectures=["NovelForCausalLM"], tie_word_embeddings=None)(novel)
    rewrite(novel, lambda tensors: tensors.pop("model.norm.weight"))  # its layout is not known
    info = inspect(novel)
    assert (info.architecture, info.layers, info.tied) == ("NovelForCausalLM", 3, True)
    (pickled / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n")
    assert inspect(pickled).files == (WEIGHTS,), "a pickle beside safetensors is never read"


def test_a_packed_checkpoint_is_described(copy, tiny):
    info = inspect(packed(copy()))
    assert info.scheme == "w4a16"
    assert info.quantization is not None
    assert info.parameters == inspect(tiny()).parameters


# ---- fingerprints


def test_a_fingerprint_is_one_of_weights_and_configuration(copy, tiny):
    folder = copy()
    first = fingerprint(folder)
    assert first == fingerprint(copy(name="again")) == fingerprint(tiny())
    assert len(first) == 64
    (folder / "tokenizer.json").write_text("{}")
    assert fingerprint(folder) == first
    rewrite(folder, lambda tensors: tensors["model.norm.weight"].add_(1))
    second = fingerprint(folder)
    edit_json(folder / "config.json", rms_norm_eps=1e-5)
    assert len({first, second, fingerprint(folder)}) == 3
