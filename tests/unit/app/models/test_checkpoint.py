import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import fingerprint, inspect
from tests.support.copies import Copy, edit_json

E = ErrorCode


def refused(path: Path, code: ErrorCode) -> HemostatError:
    with pytest.raises(HemostatError) as caught:
        inspect(path, pointer="/candidate/model")
    assert caught.value.code is code
    assert caught.value.pointer == "/candidate/model"
    assert caught.value.hint
    return caught.value


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def split(folder: Path, parts: int = 2) -> Path:
    """The same weights in several files and their index, as large models come."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    weight_map = {}
    for part in range(parts):
        file = f"model-{part + 1:05}-of-{parts:05}.safetensors"
        mine = names[part::parts]
        save_file({name: tensors[name] for name in mine}, folder / file)
        weight_map |= dict.fromkeys(mine, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
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
def test_a_sound_checkpoint_is_described(tiny: Callable[..., Path], kind: str, architecture: str, tied: bool) -> None:
    info = inspect(tiny(kind))
    file = tiny(kind) / "model.safetensors"
    assert (info.architecture, info.tied, info.scheme) == (architecture, tied, "bf16")
    assert (info.layers, info.hidden_size, info.vocabulary, info.max_position) == (3, 64, 320, 256)
    assert info.bytes == file.stat().st_size
    assert info.quantization is None
    tensors = load_file(file)
    assert {name: tensor.shape for name, tensor in info.tensors.items()} == {
        name: tuple(tensor.shape) for name, tensor in tensors.items()
    }
    assert info.parameters == sum(tensor.numel() for tensor in tensors.values())


def test_a_padded_vocabulary_is_what_the_configuration_says(tiny: Callable[..., Path]) -> None:
    assert inspect(tiny("llama-padded")).vocabulary == 333


def test_a_checkpoint_in_parts_is_the_same_model(copy: Copy) -> None:
    whole = inspect(copy())
    parts = inspect(split(copy(name="parts"), 3))
    assert set(parts.tensors) == set(whole.tensors)
    assert parts.files == tuple(f"model-{part:05}-of-00003.safetensors" for part in (1, 2, 3))
    assert parts.bytes == sum((parts.path / file).stat().st_size for file in parts.files)


def test_a_folder_is_looked_into_again_only_when_it_changed(copy: Copy) -> None:
    folder = copy()
    first = inspect(folder)
    assert inspect(folder) is first
    edit_json(folder / "config.json", max_position_embeddings=128)
    assert inspect(folder).max_position == 128


def test_a_folder_of_links_is_followed(copy: Copy, tmp_path: Path) -> None:
    blobs = copy(name="blobs")
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(file)
    assert inspect(snapshot).tensors == inspect(blobs).tensors
    (blobs / "model.safetensors").unlink()
    refused(snapshot, E.CHECKPOINT_INCOMPLETE)


def test_no_folder(tmp_path: Path) -> None:
    refused(tmp_path / "none", E.CHECKPOINT_NOT_FOUND)
    (tmp_path / "file").write_text("x")
    refused(tmp_path / "file", E.CHECKPOINT_NOT_FOUND)
    refused(tmp_path / ("x" * 300), E.CHECKPOINT_NOT_FOUND)


# ---- incomplete


def test_no_configuration(copy: Copy) -> None:
    folder = copy()
    (folder / "config.json").unlink()
    assert "config.json" in refused(folder, E.CHECKPOINT_INCOMPLETE).detail


def test_no_weights(copy: Copy) -> None:
    folder = copy()
    (folder / "model.safetensors").unlink()
    refused(folder, E.CHECKPOINT_INCOMPLETE)


def test_a_missing_shard_is_named(copy: Copy) -> None:
    folder = split(copy(), 3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    assert "model-00002-of-00003.safetensors" in refused(folder, E.CHECKPOINT_INCOMPLETE).detail


def test_a_missing_shard_is_named_without_an_index_too(copy: Copy) -> None:
    folder = split(copy(), 3)
    (folder / "model.safetensors.index.json").unlink()
    assert inspect(folder).layers == 3
    (folder / "model-00003-of-00003.safetensors").unlink()
    assert "model-00003-of-00003.safetensors" in refused(folder, E.CHECKPOINT_INCOMPLETE).detail


def test_a_single_file_beside_shards_and_their_index_is_refused(copy: Copy) -> None:
    folder = copy()
    whole = (folder / "model.safetensors").read_bytes()
    split(folder)
    assert len(inspect(folder).files) == 2
    (folder / "model.safetensors").write_bytes(whole)
    assert "model.safetensors.index.json" in refused(folder, E.CHECKPOINT_CORRUPT).detail


def test_a_shard_without_a_tensor_that_the_index_promises(copy: Copy) -> None:
    folder = split(copy())
    index = folder / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    weight_map["model.layers.9.extra.weight"] = "model-00001-of-00002.safetensors"
    edit_json(index, weight_map=weight_map)
    assert "model.layers.9.extra.weight" in refused(folder, E.CHECKPOINT_INCOMPLETE).detail


@pytest.mark.parametrize(
    "name", ["model.norm.weight", "model.layers.1.mlp.up_proj.weight", "model.embed_tokens.weight"]
)
def test_a_missing_tensor_is_named(copy: Copy, name: str) -> None:
    folder = copy()
    rewrite(folder, lambda tensors: tensors.pop(name))
    assert name in refused(folder, E.CHECKPOINT_INCOMPLETE).detail


def test_an_untied_model_needs_a_head(copy: Copy) -> None:
    folder = copy("llama-untied")
    rewrite(folder, lambda tensors: tensors.pop("lm_head.weight"))
    assert "lm_head.weight" in refused(folder, E.CHECKPOINT_INCOMPLETE).detail


def test_weight_files_without_tensors(copy: Copy) -> None:
    folder = copy()
    rewrite(folder, lambda tensors: tensors.clear())
    refused(folder, E.CHECKPOINT_INCOMPLETE)


# ---- corrupt


def test_a_truncated_weight_file_is_named(copy: Copy) -> None:
    folder = copy()
    file = folder / "model.safetensors"
    os.truncate(file, file.stat().st_size - 1000)
    told = f"checkpoint {folder.name}: model.safetensors: it is truncated"
    assert refused(folder, E.CHECKPOINT_CORRUPT).detail.startswith(told)
    with pytest.raises(HemostatError, match=r"checkpoint mine: model\.safetensors: it is truncated") as caught:
        inspect(folder, pointer="/candidate/model", name="mine")
    assert caught.value.pointer == "/candidate/model"


def test_a_checkpoint_of_the_hub_is_named_by_its_repository(copy: Copy, tmp_path: Path) -> None:
    snapshots = tmp_path / "models--somebody--small" / "snapshots"
    snapshots.mkdir(parents=True)
    folder = copy().rename(snapshots / "0f3c")
    (folder / "config.json").unlink()
    assert refused(folder, E.CHECKPOINT_INCOMPLETE).detail.startswith("checkpoint models--somebody--small: ")


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff"])
def test_a_broken_configuration(copy: Copy, text: str) -> None:
    folder = copy()
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    refused(folder, E.CHECKPOINT_CORRUPT)


@pytest.mark.parametrize(
    "changes", [{"num_hidden_layers": "3"}, {"hidden_size": 0}, {"max_position_embeddings": -1}, {"vocab_size": 3.5}]
)
def test_a_configuration_of_nonsense(copy: Copy, changes: dict[str, Any]) -> None:
    folder = copy()
    edit_json(folder / "config.json", **changes)
    assert next(iter(changes)) in refused(folder, E.CHECKPOINT_CORRUPT).detail


def test_a_broken_index(copy: Copy) -> None:
    folder = split(copy())
    (folder / "model.safetensors.index.json").write_text('{"weight_map": ["a"]}')
    refused(folder, E.CHECKPOINT_CORRUPT)


def test_a_tensor_in_two_files(copy: Copy) -> None:
    folder = copy()
    save_file({"model.norm.weight": torch.ones(64, dtype=torch.bfloat16)}, folder / "other.safetensors")
    assert "model.norm.weight" in refused(folder, E.CHECKPOINT_CORRUPT).detail


# ---- of another shape than the configuration says


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2", "granite"])
def test_a_tensor_of_another_shape_is_named_with_both(copy: Copy, kind: str) -> None:
    folder = copy(kind)
    name = "model.layers.2.mlp.down_proj.weight"

    def narrow(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name] = tensors[name][:, :100].contiguous()

    rewrite(folder, narrow)
    detail = refused(folder, E.CHECKPOINT_SHAPE_MISMATCH).detail
    assert name in detail
    assert "[64, 100]" in detail
    assert "[64, 128]" in detail


def test_an_expert_of_another_shape(copy: Copy) -> None:
    folder = copy("mixtral")
    name = "model.layers.0.block_sparse_moe.experts.3.w2.weight"

    def transpose(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name] = tensors[name].T.contiguous()

    rewrite(folder, transpose)
    assert name in refused(folder, E.CHECKPOINT_SHAPE_MISMATCH).detail


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"hidden_size": 96}, "[320, 64]"),
        ({"vocab_size": 321}, "[321, 64]"),
        ({"num_hidden_layers": 2}, "model.layers.2."),
        ({"num_key_value_heads": 2}, "k_proj"),
    ],
)
def test_a_configuration_of_another_model(copy: Copy, changes: dict[str, Any], told: str) -> None:
    folder = copy()
    edit_json(folder / "config.json", **changes)
    assert told in refused(folder, E.CHECKPOINT_SHAPE_MISMATCH).detail


def test_a_tensor_that_the_architecture_has_not(copy: Copy) -> None:
    folder = copy()

    def add_bias(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.0.self_attn.q_proj.bias"] = torch.zeros(64, dtype=torch.bfloat16)

    rewrite(folder, add_bias)
    assert "q_proj.bias" in refused(folder, E.CHECKPOINT_SHAPE_MISMATCH).detail


def test_old_buffers_are_no_obstacle(copy: Copy) -> None:
    folder = copy()

    def add(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(16)

    rewrite(folder, add)
    assert inspect(folder).layers == 3


@pytest.mark.parametrize(("shape", "sound"), [((320, 64), True), ((320, 32), False)])
def test_a_tied_model_may_bring_its_head_again(copy: Copy, shape: tuple[int, int], sound: bool) -> None:
    folder = copy()
    rewrite(folder, lambda tensors: tensors.update({"lm_head.weight": torch.zeros(shape, dtype=torch.bfloat16)}))
    if sound:
        assert inspect(folder).tied
    else:
        assert "lm_head.weight" in refused(folder, E.CHECKPOINT_SHAPE_MISMATCH).detail


@pytest.mark.parametrize("kind", [None, 3])
def test_a_configuration_without_a_model_type_is_refused(copy: Copy, kind: int | None) -> None:
    folder = copy()
    edit_json(folder / "config.json", model_type=kind)
    assert "model_type" in refused(folder, E.CHECKPOINT_UNSUPPORTED).detail


def test_an_unknown_architecture_is_checked_for_consistency_alone(copy: Copy) -> None:
    folder = copy()
    edit_json(folder / "config.json", architectures=["NovelForCausalLM"], tie_word_embeddings=None)
    rewrite(folder, lambda tensors: tensors.pop("model.norm.weight"))
    info = inspect(folder)
    assert (info.architecture, info.layers, info.tied) == ("NovelForCausalLM", 3, True)


# ---- unsafe


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pkl", "consolidated.00.pth"])
def test_pickles_alone_are_refused(copy: Copy, name: str) -> None:
    folder = copy()
    (folder / "model.safetensors").rename(folder / name)
    assert name in refused(folder, E.CHECKPOINT_UNSAFE).detail


def test_a_pickle_beside_safetensors_is_never_read(copy: Copy) -> None:
    folder = copy()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n")
    assert inspect(folder).files == ("model.safetensors",)


@pytest.mark.parametrize(
    ("file", "changes", "field"),
    [
        ("config.json", {"auto_map": {"AutoModel": "modeling_x.X"}}, "auto_map"),
        ("config.json", {"trust_remote_code": True}, "trust_remote_code"),
        ("config.json", {"nested": [{"auto_map": {"AutoConfig": "x.X"}}]}, "auto_map"),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["x.X", None]}}, "auto_map"),
        ("config.json", {"custom_pipelines": {"p": {}}}, "custom_pipelines"),
    ],
)
def test_fields_that_ask_for_code_are_refused(copy: Copy, file: str, changes: dict[str, Any], field: str) -> None:
    folder = copy()
    edit_json(folder / file, **changes)
    error = refused(folder, E.CHECKPOINT_UNSAFE)
    assert file in error.detail
    assert field in error.detail


def test_python_files_are_refused(copy: Copy) -> None:
    folder = copy()
    (folder / "modeling_novel.py").write_text("print('hello')")
    assert "modeling_novel.py" in refused(folder, E.CHECKPOINT_UNSAFE).detail


@pytest.mark.parametrize("file", ["../other/model.safetensors", "/etc/passwd", "model.bin", "sub/x.safetensors"])
def test_an_index_that_leads_elsewhere_is_refused(copy: Copy, file: str) -> None:
    folder = split(copy())
    edit_json(folder / "model.safetensors.index.json", weight_map={"model.norm.weight": file})
    refused(folder, E.CHECKPOINT_UNSAFE)


# ---- unsupported


@pytest.mark.parametrize(
    "changes",
    [
        {"architectures": None},
        {"architectures": []},
        {"architectures": ["A", "B"]},
        {"architectures": [3]},
        {"hidden_size": None},
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
    ],
)
def test_other_formats_are_refused(copy: Copy, changes: dict[str, Any]) -> None:
    folder = copy()
    edit_json(folder / "config.json", **changes)
    refused(folder, E.CHECKPOINT_UNSUPPORTED)


def test_a_gguf_is_refused_with_the_way_out(copy: Copy) -> None:
    folder = copy()
    (folder / "model.safetensors").rename(folder / "model-q4.gguf")
    assert "import-gguf" in refused(folder, E.CHECKPOINT_UNSUPPORTED).hint


def test_integers_without_a_packing_are_refused(copy: Copy) -> None:
    folder = copy()
    rewrite(folder, lambda tensors: tensors.update({k: t.to(torch.int8) for k, t in tensors.items()}))
    refused(folder, E.CHECKPOINT_UNSUPPORTED)


# ---- packed


def packed_by_hand(folder: Path, bits: int = 4, group: int = 32) -> Path:
    """Every linear layer becomes int32 words and scales, of the right shapes; what they hold does not matter here."""

    def pack(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if name.endswith("_proj.weight")]:
            out, into = tensors.pop(name).shape
            tensors[f"{name}_packed"] = torch.zeros(out, into * bits // 32, dtype=torch.int32)
            tensors[f"{name}_scale"] = torch.ones(out, into // group, dtype=torch.bfloat16)
            tensors[f"{name}_shape"] = torch.tensor([out, into])

    rewrite(folder, pack)
    weights = {"num_bits": bits, "type": "int", "strategy": "group", "group_size": group, "symmetric": True}
    edit_json(
        folder / "config.json",
        quantization_config={
            "quant_method": "compressed-tensors",
            "format": "pack-quantized",
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
        },
    )
    return folder


def test_a_packed_checkpoint_is_described(copy: Copy, tiny: Callable[..., Path]) -> None:
    info = inspect(packed_by_hand(copy()))
    assert info.scheme == "w4a16"
    assert info.quantization is not None
    assert info.parameters == inspect(tiny()).parameters


def test_layers_that_an_engine_runs_as_one_must_be_packed_alike(copy: Copy) -> None:
    folder = packed_by_hand(copy())
    quantization = json.loads((folder / "config.json").read_text())["quantization_config"]
    group = quantization["config_groups"]["group_0"]
    other = group | {"targets": ["re:.*k_proj"], "weights": group["weights"] | {"symmetric": False}}
    quantization["config_groups"]["group_1"] = other
    edit_json(folder / "config.json", quantization_config=quantization)
    assert "q_proj, k_proj, v_proj of model.layers.0.self_attn" in refused(folder, E.CHECKPOINT_UNSUPPORTED).detail


def test_a_packed_weight_without_its_scale_is_incomplete(copy: Copy) -> None:
    folder = packed_by_hand(copy())
    rewrite(folder, lambda tensors: tensors.pop("model.layers.0.mlp.up_proj.weight_scale"))
    assert "model.layers.0.mlp.up_proj.weight_scale" in refused(folder, E.CHECKPOINT_INCOMPLETE).detail


def test_a_packed_weight_of_another_shape_is_named(copy: Copy) -> None:
    folder = packed_by_hand(copy())
    name = "model.layers.0.mlp.up_proj.weight_packed"
    rewrite(folder, lambda tensors: tensors.update({name: tensors[name][:, :-1].contiguous()}))
    assert name in refused(folder, E.CHECKPOINT_SHAPE_MISMATCH).detail


# ---- fingerprints


def test_equal_contents_have_equal_fingerprints(copy: Copy, tiny: Callable[..., Path]) -> None:
    assert fingerprint(copy()) == fingerprint(copy(name="again")) == fingerprint(tiny())
    assert len(fingerprint(tiny())) == 64


def test_a_changed_weight_or_configuration_has_another_fingerprint(copy: Copy) -> None:
    folder = copy()
    found = {fingerprint(folder)}
    rewrite(folder, lambda tensors: tensors["model.norm.weight"].add_(1))
    found.add(fingerprint(folder))
    edit_json(folder / "config.json", rms_norm_eps=1e-5)
    found.add(fingerprint(folder))
    assert len(found) == 3


def test_a_tokenizer_is_no_part_of_the_weights(copy: Copy) -> None:
    folder = copy()
    before = fingerprint(folder)
    (folder / "tokenizer.json").write_text("{}")
    assert fingerprint(folder) == before


def test_fingerprinting_can_be_cancelled(copy: Copy) -> None:
    class StopError(Exception):
        pass

    def stop() -> None:
        raise StopError

    with pytest.raises(StopError):
        fingerprint(copy(), check_cancelled=stop)


def test_a_broken_checkpoint_has_no_fingerprint(copy: Copy) -> None:
    folder = copy()
    shutil.rmtree(folder)
    with pytest.raises(HemostatError):
        fingerprint(folder)
