"""Folders that were made to do harm: each is refused, or described, and nothing else happens."""

import copy as copying
import json
import os
import struct
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from app.contracts.errors import ErrorCode, HemostatError
from app.kinds.compare.request import CompareRequest
from app.kinds.estimates import estimate
from app.models.adapters import CONFIG, WEIGHTS, inspect_adapter
from app.models.checkpoint import inspect
from app.models.registry import load_registry
from app.models.tokenizers import check_tokenizer
from app.settings import Settings
from tests.support.copies import edit_json

E = ErrorCode


def refused(folder):
    with pytest.raises(HemostatError) as caught:
        check_tokenizer(folder, inspect(folder).vocabulary, name="hostile")
    assert caught.value.hint
    return caught.value


@pytest.mark.timeout(60)
@pytest.mark.parametrize("layers", [200_000, 10**9, 2**31, 10**4000, -1, 1e308])
def test_layers_that_no_tensor_shows(copy, layers):
    folder = copy()
    edit_json(folder / "config.json", num_hidden_layers=layers)
    error = refused(folder)
    assert error.code in (E.CHECKPOINT_SHAPE_MISMATCH, E.CHECKPOINT_CORRUPT)
    assert len(error.detail) < 300


@pytest.mark.timeout(60)
def test_experts_that_no_tensor_shows(copy):
    folder = copy("mixtral")
    edit_json(folder / "config.json", num_local_experts=10**9)
    assert refused(folder).code is E.CHECKPOINT_SHAPE_MISMATCH  # of the router
    tensors = load_file(folder / "model.safetensors")
    for name in [name for name in tensors if name.endswith("gate.weight")]:
        tensors[name] = torch.zeros(10**6, 64, dtype=torch.bfloat16)
    save_file(tensors, folder / "model.safetensors")
    edit_json(folder / "config.json", num_local_experts=10**6)
    assert "experts.4." in refused(folder).detail


@pytest.mark.timeout(60)
@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "NovelForCausalLM"])
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"])
def test_a_file_of_a_gigabyte(copy, name, architecture):
    folder = copy()
    edit_json(folder / "config.json", architectures=[architecture])
    os.truncate(folder / name, 10**9)  # a hole: it takes no disk
    error = refused(folder)
    assert (error.code, name in error.detail) == (E.CHECKPOINT_CORRUPT, True)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("header", [10**8, 33 * 1024**2, 2**63])
def test_a_header_longer_than_any_is_not_read(copy, header):
    folder = copy()
    weights = folder / "model.safetensors"
    weights.write_bytes(struct.pack("<Q", header) + b"{")
    os.truncate(weights, 2 * 10**8)
    assert f"its header has {header:,} bytes" in refused(folder).detail


@pytest.mark.timeout(60)
def test_parts_that_a_name_announces_by_the_ten_thousands(copy):
    folder = copy()
    for number in range(200):
        os.link(folder / "model.safetensors", folder / f"model-{number:05}-of-{99_999 - number}.safetensors")
    assert refused(folder).code is E.CHECKPOINT_INCOMPLETE


@pytest.mark.timeout(60)
@pytest.mark.parametrize("text", ["[" * 10**6, '{"a":' * 10**6, "[]," * 10**6, '{"a": 1e999}', "1" * 10**6])
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_json_made_to_exhaust_a_reader(copy, name, text):
    folder = copy()
    (folder / name).write_text(text)
    if name != "tokenizer_config.json" or text != '{"a": 1e999}':
        refused(folder)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_file_that_never_ends_is_none(copy, name):
    """A pipe that nobody writes to, and a device that gives zeros for ever."""
    folder = copy()
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert refused(folder).code is E.CHECKPOINT_INCOMPLETE
    (folder / name).unlink()
    (folder / name).symlink_to("/dev/zero")
    assert refused(folder).code is E.CHECKPOINT_INCOMPLETE


# ---- mutations

ODD: list[Any] = [None, True, 0, -1, 2**31, 10**30, 1e308, float("nan"), "", "re:(a+)+$", "x" * 5000, [], {}, [None]]
ODD += [{"a": {}}, {"type": "Sequence", "processors": 3}, [[[[]]]], {"0": "x"}, {"quant_method": "compressed-tensors"}]
VALUES = st.sampled_from(ODD) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def places(value, limit=40):
    """(container, key) of values at any depth; of long lists and objects the first ones."""
    keys = list(value)[:limit] if isinstance(value, dict) else range(min(len(value), limit))
    found = [(value, key) for key in keys]
    for key in keys:
        if isinstance(value[key], dict | list):
            found += places(value[key], 4)
    return found


QUANTIZED = {
    "quant_method": "compressed-tensors",
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 4, "type": "int", "group_size": 32},
            "input_activations": {"num_bits": 8, "dynamic": True},
        }
    },
    "ignore": ["lm_head"],
}
FILES = {
    "config.json": {"rope_scaling": {"rope_type": "linear", "factor": 2.0}, "quantization_config": QUANTIZED},
    "tokenizer.json": {},
    "tokenizer_config.json": {"chat_template": [{"name": "default", "template": "x"}]},
    "generation_config.json": {},
}
REQUEST: dict[str, Any] = {
    "kind": "compare",
    "reference": {"model": "sound"},
    "candidate": {"model": "hostile", "recipe": [{"type": "quantize.rtn", "bits": 4, "group_size": 32}]},
    "window": 64,
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["llama", "mixtral", "gemma2"])
def test_a_mutated_checkpoint_is_refused_or_taken(kind, copy, tiny, tmp_path):
    folder = copy(kind)
    models = tmp_path / "models.toml"
    models.write_text(f"[models.sound]\npath = {str(tiny(kind))!r}\n[models.hostile]\npath = {str(folder)!r}\n")
    registry, configured = load_registry(models), Settings(home=tmp_path / "home")
    texts = {name: (folder / name).read_text() for name in FILES}

    @settings(max_examples=150)
    @given(st.data())
    def run(data):
        name = data.draw(st.sampled_from(sorted(FILES)))
        packed = data.draw(st.booleans())
        content = json.loads(texts[name]) | (copying.deepcopy(FILES[name]) if packed else {})
        for _ in range(data.draw(st.integers(1, 2))):
            container, key = data.draw(st.sampled_from(places(content)))
            container[key] = copying.deepcopy(data.draw(VALUES))
        (folder / name).write_text(json.dumps(content))
        steps = data.draw(
            st.sampled_from([REQUEST["candidate"]["recipe"], [], [{"type": "context.linear", "factor": 2}]])
        )
        request = CompareRequest.model_validate(REQUEST | {"candidate": {"model": "hostile", "recipe": steps}})
        try:
            estimate(request, registry, configured)
        except HemostatError as error:
            assert error.hint
        finally:
            (folder / name).write_text(texts[name])

    run()


@pytest.mark.timeout(600)
def test_a_mutated_header_or_adapter_is_refused_or_taken(copy, tmp_path):
    folder = copy()
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header, rest = json.loads(whole[8 : 8 + length]), whole[8 + length :]
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    factors = {f"{module}.lora_A.weight": torch.ones(2, 8), f"{module}.lora_B.weight": torch.ones(8, 2)}
    save_file(factors, tmp_path / WEIGHTS)
    adapter = {"peft_type": "LORA", "lora_alpha": 4, "alpha_pattern": {"q_proj": 3}, "bias": "none", "use_rslora": True}

    @settings(max_examples=150)
    @given(st.data())
    def run(data):
        changed, other = copying.deepcopy(header), copying.deepcopy(adapter)
        for content in (changed, other):
            container, key = data.draw(st.sampled_from(places(content)))
            container[key] = copying.deepcopy(data.draw(VALUES))
        text = json.dumps(changed).encode()
        weights.write_bytes(struct.pack("<Q", len(text)) + text + rest)
        (tmp_path / CONFIG).write_text(json.dumps(other))
        for look in (inspect, inspect_adapter):
            try:
                look(folder if look is inspect else tmp_path)
            except HemostatError as error:
                assert error.hint

    run()
