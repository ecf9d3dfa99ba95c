"""The scaling of rotary positions out of a GGUF file, against transformers' own frequencies."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from app.contracts.errors import ErrorCode, HemostatError
from workers.surgery.gguf_rotary import with_scaling

CONFIG = {"model_type": "llama", "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}


def llama3(factor, *, low=1.0, head_dim=64):
    """The configuration, and the factors as a file holds them: plain frequencies over transformers' scaled ones."""
    rotary = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    config = LlamaConfig(head_dim=head_dim, rope_parameters=rotary, max_position_embeddings=131072)
    scaled_F, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain_F = 500000.0 ** -(np.arange(0, head_dim, 2) / head_dim)
    return rotary, (plain_F / scaled_F.double().numpy()).astype(np.float32)


def refused(metadata, factors_F=None, config=CONFIG):
    with pytest.raises(HemostatError) as caught:
        with_scaling(config, metadata, factors_F)
    assert caught.value.code is ErrorCode.CHECKPOINT_UNSUPPORTED
    assert caught.value.hint
    return caught.value.detail


@pytest.mark.parametrize(("factor", "head_dim"), [(8.0, 128), (32.0, 64)])
def test_llama_3_s_factors_become_the_configuration_that_they_come_from(factor, head_dim):
    rotary, factors_F = llama3(factor, head_dim=head_dim)
    found = with_scaling(CONFIG, {"rope.freq_base": 500000.0}, factors_F)
    assert found["rope_parameters"].pop("factor") == pytest.approx(rotary.pop("factor"), rel=1e-6)
    assert found == {**CONFIG, "rope_parameters": rotary}


def test_other_factors_are_refused():
    assert "not those of Llama 3" in refused({}, llama3(8.0, low=2.0)[1])


@pytest.mark.parametrize("factors", [None, np.ones(32, dtype=np.float32)])
@pytest.mark.parametrize("metadata", [{}, {"rope.scaling.type": "none"}, {"rope.scaling.finetuned": True}])
def test_without_a_scaling_the_configuration_stays(factors, metadata):
    assert with_scaling(CONFIG, metadata, factors) == CONFIG


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"type": "linear", "factor": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        (
            {"type": "yarn", "factor": 4.0, "original_context_length": 32768, "yarn_beta_fast": 16.0},
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768, "beta_fast": 16.0},
        ),
        (
            {"type": "linear", "factor": 2.0, "attn_factor": 1.0, "finetuned": True},
            {"rope_type": "linear", "factor": 2.0},
        ),
        ({"factor": 8.0}, {"rope_type": "linear", "factor": 8.0}),
    ],
)
def test_a_scaling_in_the_metadata_is_carried_over(told, expected):
    metadata = {f"rope.scaling.{key}": value for key, value in told.items()} | {"context_length": 131072}
    found = with_scaling(CONFIG, metadata, None)["rope_parameters"]
    assert found == {"rope_theta": 500000.0} | expected


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"type": "longrope", "factor": 4.0}, "longrope"),
        ({"type": "linear"}, "linear"),
        ({"type": "yarn", "factor": 4.0}, "without the context"),
        ({"type": "yarn", "factor": 4.0, "original_context_length": 4096, "attn_factor": 1.2}, "attn_factor"),
    ],
)
def test_a_scaling_that_cannot_be_carried_over_is_refused(told, words):
    assert words in refused({f"rope.scaling.{key}": value for key, value in told.items()})


def test_two_scalings_and_one_over_another_are_refused():
    factors_F = llama3(8.0)[1]
    assert "twice" in refused({"rope.scaling.type": "linear", "rope.scaling.factor": 2.0}, factors_F)
    for rotary in (None, {"rope_type": "yarn"}, {"full_attention": {"rope_type": "default"}}):
        assert refused({}, factors_F, CONFIG | {"rope_parameters": rotary})
