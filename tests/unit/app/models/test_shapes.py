"""The oracle for shapes is transformers: a model of each architecture, built and saved by it."""

import json
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from app.contracts.errors import ErrorCode, HemostatError
from app.models.shapes import LAYOUTS, dimension, expected_tensors

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "pad_token_id": 0,
}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama-biases": {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
    "mistral": {},
    "qwen2": {},
    "qwen3": {},
    "qwen3-biases": {"model_type": "qwen3", "attention_bias": True},
    "gemma": {},
    "gemma2": {},
    "gemma3_text": {},
    "granite": {"attention_bias": True},
    "phi3": {},
    "mixtral": {"num_local_experts": 3},
    "qwen2_moe": {
        "num_experts": 4,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 24,
        "decoder_sparse_step": 2,
    },
    "qwen3_moe": {"num_experts": 4, "moe_intermediate_size": 16, "mlp_only_layers": [1]},
}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", sorted(MODELS))
def test_names_and_shapes_are_those_that_transformers_saves(name, tied, tmp_path_factory):
    from app.models.safetensors_header import read_header

    options = {"model_type": name} | MODELS[name] | {"tie_word_embeddings": tied}
    config = AutoConfig.for_model(**(SIZES | options))
    folder = tmp_path_factory.mktemp(name)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    written = json.loads((folder / "config.json").read_text())
    saved = {key: info.shape for key, info in read_header(folder / "model.safetensors").items()}
    assert expected_tensors(written["architectures"][0], written) == saved


def test_the_defaults_are_those_of_transformers():
    types = {layout: name for name in MODELS if (layout := _architecture(name))}
    for architecture, layout in LAYOUTS.items():
        config = AutoConfig.for_model(types[architecture])
        assert layout.tied == config.tie_word_embeddings, architecture
        if layout.kv_heads is not None:
            assert layout.kv_heads == config.num_key_value_heads, architecture
        if layout.head_dim is not None:
            assert layout.head_dim == config.head_dim, architecture


def _architecture(name):
    if "-" in name:
        return ""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**(SIZES | {"model_type": name} | MODELS[name])))
    return type(model).__name__


def test_an_old_configuration_without_key_value_heads_has_as_many_as_heads():
    config = {
        "hidden_size": 32,
        "vocab_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "intermediate_size": 48,
    }
    expected = expected_tensors("LlamaForCausalLM", config)
    assert expected is not None
    assert expected["model.layers.0.self_attn.k_proj.weight"] == (32, 32)


@pytest.mark.parametrize("value", [None, 0, -1, 1.5, "32", True, [32]])
def test_a_dimension_that_is_no_positive_number_is_refused(value):
    with pytest.raises(HemostatError) as caught:
        dimension({"hidden_size": value}, "hidden_size")
    assert caught.value.code is ErrorCode.CHECKPOINT_CORRUPT
    assert "hidden_size" in caught.value.detail
