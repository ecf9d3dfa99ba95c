"""What an engine would refuse of a configuration is refused as the checkpoint is looked at."""

import pytest

from app.contracts.errors import ErrorCode, HemostatError
from app.models.arithmetic import ACTIVATIONS, check_arithmetic
from app.models.shapes import LAYOUTS


def rope(**fields):
    return {"rope_parameters": fields}


def test_what_vllm_does_not_compute_is_named():
    both = {"full_attention": {"rope_type": "spiral"}, "sliding_attention": {}}
    for architecture, config, told in (
        ("LlamaForCausalLM", {"hidden_act": "gelu"}, "silu"),
        ("Qwen3MoeForCausalLM", {"hidden_act": "relu2"}, "relu2"),
        ("Gemma2ForCausalLM", {"hidden_activation": "gelu"}, "hidden_activation"),
        ("GemmaForCausalLM", {"hidden_activation": "silu"}, "gelu_pytorch_tanh and gelu"),
        ("LlamaForCausalLM", rope(rope_type="spiral"), "spiral"),
        ("LlamaForCausalLM", {"rope_scaling": {"type": "spiral", "factor": 2.0}}, "spiral"),
        ("Gemma3ForCausalLM", rope(**both), "spiral"),
    ):
        with pytest.raises(HemostatError, match=told) as caught:
            check_arithmetic(architecture, config)
        assert caught.value.code is ErrorCode.CHECKPOINT_UNSUPPORTED
        assert caught.value.hint


def test_what_it_computes_is_taken_and_of_other_architectures_nothing_is_known():
    for architecture, config in (
        ("LlamaForCausalLM", {"hidden_act": "silu", "rope_scaling": None}),
        ("GemmaForCausalLM", {"hidden_act": "gelu"}),
        ("GemmaForCausalLM", {"hidden_act": "gelu", "hidden_activation": None}),
        ("Gemma2ForCausalLM", {"hidden_activation": "gelu_pytorch_tanh"}),
        ("Phi3ForCausalLM", {"rope_scaling": {"type": "su"}}),
        ("LlamaForCausalLM", rope(rope_type="llama3", factor=8.0)),
        ("LlamaForCausalLM", rope(rope_theta=10000.0)),
        ("OtherForCausalLM", {"hidden_act": "relu2"}),
    ):
        check_arithmetic(architecture, config)


def test_every_known_layout_has_its_activations():
    assert ACTIVATIONS.keys() == LAYOUTS.keys()
