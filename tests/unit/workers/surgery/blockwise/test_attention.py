"""Attention that is differentiated in float32, on any processor: `lacking` is told what it shall say."""

from types import SimpleNamespace
from typing import cast

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from workers import products
from workers.surgery.blockwise import attention
from workers.surgery.blockwise.attention import CAPPED, WIDENED, capped, implementation

LAYER = cast("torch.nn.Module", SimpleNamespace(num_key_value_groups=2, is_causal=True, training=False))
SHAPES = ((2, 4, 9, 16), (2, 2, 9, 16), (2, 2, 9, 16))


SEEN = torch.ones(9, 9, dtype=torch.bool).tril()


def by_float64(states, found, cap=None):
    """(states with gradients of the sum of squares of `found`, attention's weights, its output), scores capped."""
    exact = [one.detach().double().requires_grad_() for one in states]
    query, key, value = exact[0], *(one.repeat_interleave(2, dim=1) for one in exact[1:])
    score = query @ key.transpose(-1, -2) * 0.25
    score = score if cap is None else cap * torch.tanh(score / cap)
    weights = score.masked_fill(~SEEN, -torch.inf).softmax(-1)
    wanted = (weights @ value).transpose(1, 2)
    wanted.backward(2 * found.detach().double())
    return exact, weights, wanted


@pytest.fixture
def without(monkeypatch):
    for module in (attention, products):
        monkeypatch.setattr(module, "lacking", lambda dtype: dtype == torch.bfloat16)


def drawn(*, grad):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).bfloat16().requires_grad_(grad) for shape in SHAPES]


def test_only_what_lacks_products_is_widened(without, monkeypatch):
    assert (implementation(torch.bfloat16), capped(torch.bfloat16)) == (WIDENED, CAPPED)
    assert (implementation(torch.float32), capped(torch.float32)) == ("sdpa", "eager")
    monkeypatch.setattr(attention, "lacking", lambda _: False)
    assert implementation(torch.bfloat16) == "sdpa"


@pytest.mark.parametrize("masked", [False, True])
def test_outputs_and_gradients_are_those_of_float64_rounded_once(masked):
    mask = torch.where(SEEN, 0.0, -torch.inf).bfloat16()[None, None] if masked else None
    states = drawn(grad=True)
    found, _ = attention._attention(LAYER, *states, mask, dropout=0.0, scaling=0.25)
    found.float().square().sum().backward()
    exact, _, wanted = by_float64(states, found)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), wanted, rtol=2**-8, atol=1e-6)
    for one, other in zip(states, exact, strict=True):
        torch.testing.assert_close(one.grad.double(), other.grad, rtol=2**-8, atol=1e-5)


def test_without_a_gradient_the_bits_are_those_of_the_fused_attention():
    states = drawn(grad=False)
    found, _ = attention._attention(LAYER, *states, None, dropout=0.0, scaling=0.25)
    assert torch.equal(found, sdpa_attention_forward(LAYER, *states, None, dropout=0.0, scaling=0.25)[0])
    trained = drawn(grad=True)
    with torch.no_grad():
        assert torch.equal(found, attention._attention(LAYER, *trained, None, dropout=0.0, scaling=0.25)[0])


def test_a_model_masks_as_with_the_fused_attention(without):
    """One window is shorter than the other: a mask is made."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 64}
    config = LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2)
    model = LlamaForCausalLM(config).bfloat16().eval()
    tokens, present = torch.randint(0, 64, (2, 7)), torch.ones(2, 7, dtype=torch.long)
    present[1, :3] = 0
    found = {}
    for name in ("sdpa", implementation(torch.bfloat16)):
        model.set_attn_implementation(name)
        with torch.no_grad():
            found[name] = model(input_ids=tokens, attention_mask=present).logits
    assert torch.equal(found["sdpa"], found[WIDENED])


def test_capped_scores_and_their_gradients_are_those_of_float64(without):
    mask = torch.where(SEEN, 0.0, torch.finfo(torch.bfloat16).min).bfloat16()[None, None]
    states = drawn(grad=True)
    found, p_NHLS = attention._capped_attention(LAYER, *states, mask, scaling=0.25, softcap=2.0)
    found.float().square().sum().backward()
    exact, weights, wanted = by_float64(states, found, cap=2.0)
    assert found.dtype == p_NHLS.dtype == torch.bfloat16
    torch.testing.assert_close(p_NHLS.double(), weights, rtol=0.02, atol=1e-6)
    torch.testing.assert_close(found.double(), wanted, rtol=0.02, atol=0.01)
    for one, other in zip(states, exact, strict=True):
        torch.testing.assert_close(one.grad.double(), other.grad, rtol=0.05, atol=0.05)


def test_a_model_whose_scores_are_capped_is_masked_as_transformers_masks_it(without):
    """One window is shorter than the other, both are longer than the sliding window; the cap is felt."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 64, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": 4, "query_pre_attn_scalar": 1}
    model = Gemma2ForCausalLM(Gemma2Config(**sizes, **heads, attn_logit_softcapping=0.5)).bfloat16().eval()
    tokens, present = torch.randint(0, 64, (2, 7)), torch.ones(2, 7, dtype=torch.long)
    present[1, :3] = 0
    found = {}
    for name in ("eager", capped(torch.bfloat16), "sdpa"):
        model.set_attn_implementation(name)
        with torch.no_grad():
            found[name] = model(input_ids=tokens, attention_mask=present).logits.float()[present.bool()]
    torch.testing.assert_close(found[CAPPED], found["eager"], rtol=0.02, atol=0.02)
    assert (found["sdpa"] - found["eager"]).abs().max() > 3 * (found[CAPPED] - found["eager"]).abs().max()
