import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from app.models.checkpoint import inspect
from workers.engine.shape import kv_bytes_per_token, packing_signature, same_tensors, shape_key

Tiny = Callable[..., Path]


def with_config(folder: Path, tmp_path: Path, **changes: object) -> Path:
    """A copy (of links) of a checkpoint whose configuration has changes."""
    for file in folder.iterdir():
        if file.name != "config.json":
            (tmp_path / file.name).symlink_to(file)
    config = json.loads((folder / "config.json").read_text()) | changes
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def test_other_weights_of_the_same_shape_share_an_engine(tiny: Tiny) -> None:
    assert shape_key(inspect(tiny("llama"))) == shape_key(inspect(tiny("llama", seed=1)))
    assert same_tensors(inspect(tiny("llama")), inspect(tiny("llama", seed=1)))


@pytest.mark.parametrize("changes", [{"transformers_version": "0"}, {"eos_token_id": 7}, {"use_cache": False}])
def test_what_no_forward_pass_reads_may_differ(tiny: Tiny, tmp_path: Path, changes: dict[str, object]) -> None:
    changed = with_config(tiny("llama"), tmp_path, **changes)
    assert shape_key(inspect(changed)) == shape_key(inspect(tiny("llama")))


@pytest.mark.parametrize(
    "changes",
    [
        {"rms_norm_eps": 0.5},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 77.0}},
        {"sliding_window": 64},
        {"attention_bias": False, "a_field_of_tomorrow": 1},
    ],
)
def test_what_a_forward_pass_may_read_needs_another_engine(
    tiny: Tiny, tmp_path: Path, changes: dict[str, object]
) -> None:
    """Weights swapped into an engine that was started with another epsilon or RoPE would be scored wrongly."""
    changed = with_config(tiny("llama"), tmp_path, **changes)
    assert shape_key(inspect(changed)) != shape_key(inspect(tiny("llama")))


def test_architectures_have_engines_of_their_own(tiny: Tiny) -> None:
    keys = {shape_key(inspect(tiny(kind))) for kind in ("llama", "llama-untied", "qwen2", "gemma2", "mixtral")}
    assert len(keys) == 5


def test_a_missing_or_different_tensor_is_not_the_same(tiny: Tiny) -> None:
    info = inspect(tiny("llama"))
    name = "model.layers.1.self_attn.k_proj.weight"
    without = replace(info, tensors={key: value for key, value in info.tensors.items() if key != name})
    other_dtype = replace(info, tensors=info.tensors | {name: replace(info.tensors[name], dtype="F32")})
    other_shape = replace(info, tensors=info.tensors | {name: replace(info.tensors[name], shape=(64, 64))})
    assert not same_tensors(info, without)
    assert not same_tensors(info, other_dtype)
    assert not same_tensors(info, other_shape)


def test_a_head_does_not_matter_to_an_engine_without_one(tiny: Tiny) -> None:
    info = inspect(tiny("llama-untied"))
    assert same_tensors(info, replace(info, tensors=info.tensors | {"lm_head.bias": info.tensors["model.norm.weight"]}))


def packed(**weights: object) -> dict[str, object]:
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": weights}}}


def test_a_packing_is_told_in_words(tiny: Tiny) -> None:
    info = inspect(tiny("llama"))
    int4 = packed(num_bits=4, type="int", symmetric=False, strategy="group", group_size=64)
    assert packing_signature(info) == "plain"
    assert packing_signature(replace(info, quantization=int4)) == "int4 group 64 asymmetric"
    int8 = packed(num_bits=8, type="int", symmetric=True, strategy="channel")
    group = int8["config_groups"]["group_0"]  # type: ignore[index]
    group["input_activations"] = {
        "num_bits": 8,
        "type": "int",
        "symmetric": True,
        "strategy": "token",
        "dynamic": True,
    }
    assert packing_signature(replace(info, quantization=int8)) == (
        "int8 channel symmetric / int8 token dynamic symmetric"
    )


def test_the_packers_version_does_not_matter_but_the_group_size_does(tiny: Tiny) -> None:
    info = inspect(tiny("llama"))
    one = packed(num_bits=4, strategy="group", group_size=64)
    key = shape_key(replace(info, quantization=one | {"version": "0.17"}))
    assert key == shape_key(replace(info, quantization=one | {"version": "0.19", "global_compression_ratio": 1.5}))
    assert key != shape_key(replace(info, quantization=packed(num_bits=4, strategy="group", group_size=32)))


def test_keys_and_values_of_a_token(tiny: Tiny) -> None:
    # 3 layers, 1 key-value head of 32, keys and values, 2 bytes
    assert kv_bytes_per_token(inspect(tiny("llama")).config, 2) == 3 * 2 * 32 * 2
    # without head_dim and key-value heads: 4 heads of 64 / 4
    assert (
        kv_bytes_per_token({"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64}, 4) == 2 * 2 * 64 * 4
    )
