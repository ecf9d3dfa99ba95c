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


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (attention, products):
        monkeypatch.setattr(module, "lacking", lambda dtype: dtype == torch.bfloat16)


def drawn(*, grad: bool) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).bfloat16().requires_grad_(grad) for shape in SHAPES]


def test_only_what_lacks_products_is_widened(without: None) -> None:
    assert implementation(torch.bfloat16) == WIDENED
    assert implementation(torch.float32) == "sdpa"


def test_what_has_them_runs_as_transformers_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "lacking", lambda _: False)
    assert implementation(torch.bfloat16) == "sdpa"


@pytest.mark.parametrize("masked", [False, True])
def test_outputs_and_gradients_are_those_of_float64_rounded_once(masked: bool) -> None:
    seen = torch.ones(9, 9, dtype=torch.bool).tril()
    mask = torch.where(seen, 0.0, -torch.inf).bfloat16()[None, None] if masked else None
    states = drawn(grad=True)
    found, _ = attention._attention(LAYER, *states, mask, dropout=0.0, scaling=0.25)
    found.float().square().sum().backward()
    exact = [one.detach().double().requires_grad_() for one in states]
    query, key, value = exact[0], *(one.repeat_interleave(2, dim=1) for one in exact[1:])
    weights = (query @ key.transpose(-1, -2) * 0.25).masked_fill(~seen, -torch.inf).softmax(-1)
    wanted = (weights @ value).transpose(1, 2)
    wanted.backward(2 * found.detach().double())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), wanted, rtol=2**-8, atol=1e-6)
    for one, other in zip(states, exact, strict=True):
        assert one.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(one.grad.double(), other.grad, rtol=2**-8, atol=1e-5)


def test_without_a_gradient_the_bits_are_those_of_the_fused_attention() -> None:
    states = drawn(grad=False)
    found, _ = attention._attention(LAYER, *states, None, dropout=0.0, scaling=0.25)
    assert torch.equal(found, sdpa_attention_forward(LAYER, *states, None, dropout=0.0, scaling=0.25)[0])
    trained = drawn(grad=True)
    with torch.no_grad():
        assert torch.equal(found, attention._attention(LAYER, *trained, None, dropout=0.0, scaling=0.25)[0])


def test_a_model_masks_as_with_the_fused_attention(without: None) -> None:
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


def test_capped_scores_have_products_of_their_own_where_the_processor_has_none(without: None) -> None:
    assert capped(torch.bfloat16) == CAPPED
    assert capped(torch.float32) == "eager"


def test_capped_scores_and_their_gradients_are_those_of_float64(without: None) -> None:
    seen = torch.ones(9, 9, dtype=torch.bool).tril()
    mask = torch.where(seen, 0.0, torch.finfo(torch.bfloat16).min).bfloat16()[None, None]
    states = drawn(grad=True)
    found, p_NHLS = attention._capped_attention(LAYER, *states, mask, scaling=0.25, softcap=2.0)
    found.float().square().sum().backward()
    exact = [one.detach().double().requires_grad_() for one in states]
    query, key, value = exact[0], *(one.repeat_interleave(2, dim=1) for one in exact[1:])
    score = 2.0 * torch.tanh(query @ key.transpose(-1, -2) * 0.25 / 2.0)
    weights = score.masked_fill(~seen, -torch.inf).softmax(-1)
    wanted = (weights @ value).transpose(1, 2)
    wanted.backward(2 * found.detach().double())
    assert found.dtype == p_NHLS.dtype == torch.bfloat16
    torch.testing.assert_close(p_NHLS.double(), weights, rtol=0.02, atol=1e-6)
    torch.testing.assert_close(found.double(), wanted, rtol=0.02, atol=0.01)
    for one, other in zip(states, exact, strict=True):
        assert one.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(one.grad.double(), other.grad, rtol=0.05, atol=0.05)


def test_a_model_whose_scores_are_capped_is_masked_as_transformers_masks_it(without: None) -> None:
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
