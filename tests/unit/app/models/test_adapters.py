"""A folder of an adapter that is damaged: which one, and what to do."""

import json

import pytest
import torch
from safetensors.torch import save_file

from app.contracts.errors import ErrorCode, HemostatError
from app.models.adapters import CONFIG, WEIGHTS, inspect_adapter

MODULE = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.fixture
def adapter(tmp_path):
    folder = tmp_path / "tuned"
    folder.mkdir()
    (folder / CONFIG).write_text(json.dumps({"peft_type": "LORA", "lora_alpha": 4}))
    factors = {f"{MODULE}.lora_A.weight": torch.ones(2, 8), f"{MODULE}.lora_B.weight": torch.ones(8, 2)}
    save_file(factors, folder / WEIGHTS)
    return folder


def refused(folder):
    with pytest.raises(HemostatError) as caught:
        inspect_adapter(folder, pointer="/candidate/recipe/0/adapter")
    assert caught.value.pointer == "/candidate/recipe/0/adapter"
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("left", [0, 4, 100, -1])
def test_weights_that_break_off_are_told_with_the_adapter_s_name(adapter, left):
    whole = (adapter / WEIGHTS).read_bytes()
    (adapter / WEIGHTS).write_bytes(whole[:left])
    error = refused(adapter)
    assert error.code is ErrorCode.CHECKPOINT_CORRUPT
    assert error.detail.startswith(f"the adapter tuned is damaged: {WEIGHTS}: it ")


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_so_is_a_configuration_that_is_none(adapter, text):
    (adapter / CONFIG).write_text(text)
    error = refused(adapter)
    assert error.code is ErrorCode.CHECKPOINT_CORRUPT
    assert error.detail.startswith(f"the adapter tuned is damaged: {CONFIG} ")


@pytest.mark.parametrize("pattern", [["q_proj"], "q_proj", {"q_proj": "much"}, {"(": 1}, {"(?=q)q_proj": 1}])
def test_alphas_that_cannot_be_read_are_told(adapter, pattern):
    (adapter / CONFIG).write_text(json.dumps({"peft_type": "LORA", "alpha_pattern": pattern}))
    error = refused(adapter)
    assert error.code is ErrorCode.CHECKPOINT_UNSUPPORTED
    assert "its alpha of model.layers.0.self_attn.q_proj cannot be read" in error.detail


@pytest.mark.timeout(60)
def test_a_pattern_of_alphas_that_never_ends_elsewhere_is_answered(adapter):
    pattern = {"(([a-z0-9._])+)+!": 3, "q_proj": 5}
    (adapter / CONFIG).write_text(json.dumps({"peft_type": "LORA", "alpha_pattern": pattern}))
    info = inspect_adapter(adapter)
    target = info.targets["model.layers.0.self_attn.q_proj.weight"]
    assert target.scale == 5 / target.rank
