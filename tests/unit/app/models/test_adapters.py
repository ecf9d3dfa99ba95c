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


def refused(folder, code):
    with pytest.raises(HemostatError) as caught:
        inspect_adapter(folder, pointer="/candidate/recipe/0/adapter")
    assert (caught.value.code, caught.value.pointer) == (code, "/candidate/recipe/0/adapter")
    assert caught.value.hint
    return caught.value.detail


def test_files_that_break_off_are_told_with_the_adapter_s_name(adapter):
    for name in (WEIGHTS, CONFIG):
        whole = (adapter / name).read_bytes()
        for left in (b"", whole[:4], whole[:-1], b"[]"):
            (adapter / name).write_bytes(left)
            detail = refused(adapter, ErrorCode.CHECKPOINT_CORRUPT)
            assert "tuned" in detail
            assert name in detail
        (adapter / name).write_bytes(whole)


def test_alphas_that_cannot_be_read_are_told(adapter):
    for pattern in (["q_proj"], "q_proj", {"q_proj": "much"}, {"(": 1}, {"(?=q)q_proj": 1}):
        (adapter / CONFIG).write_text(json.dumps({"peft_type": "LORA", "alpha_pattern": pattern}))
        assert "model.layers.0.self_attn.q_proj" in refused(adapter, ErrorCode.CHECKPOINT_UNSUPPORTED)


@pytest.mark.timeout(60)
def test_a_pattern_of_alphas_that_never_ends_elsewhere_is_answered(adapter):
    pattern = {"(([a-z0-9._])+)+!": 3, "q_proj": 5}
    (adapter / CONFIG).write_text(json.dumps({"peft_type": "LORA", "alpha_pattern": pattern}))
    info = inspect_adapter(adapter)
    target = info.targets["model.layers.0.self_attn.q_proj.weight"]
    assert target.scale == 5 / target.rank
