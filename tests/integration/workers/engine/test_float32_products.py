"""Engines on processors without 16-bit products; here on any, by what `lacking` is told to say."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from app.models.checkpoint import inspect
from tests.integration.workers.engine.conftest import same
from tests.support.engines import model_of
from workers.engine import mending
from workers.engine.resident import ResidentEngine
from workers.engine.swap import Trust

Tiny = Callable[..., Path]
Resident = Callable[[Path, Trust], ResidentEngine]
KINDS = ["llama", "llama-untied", "qwen2", "gemma2", "granite", "mixtral"]


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mending, "lacking", lambda dtype: dtype == torch.bfloat16)


@pytest.mark.parametrize("kind", KINDS)
def test_swapped_weights_score_bit_for_bit_as_a_fresh_engine(
    without: None, tiny: Tiny, resident: Resident, windows: list[list[int]], kind: str
) -> None:
    """The packed float32 weights of the first checkpoint do not outlive it."""
    first, second = tiny(kind), tiny(kind, seed=1)
    engine = resident(first, Trust("cpu"))
    fresh_first = engine.hidden_states(windows)
    engine.load(inspect(second))
    swapped = engine.hidden_states(windows)
    assert (engine.starts, engine.swaps) == (1, 1)
    engine.load(inspect(first))
    assert same(engine.hidden_states(windows), fresh_first)
    engine.close()
    assert same(swapped, resident(second, Trust("cpu")).hidden_states(windows))
    assert not same(swapped, fresh_first)


def test_linear_layers_give_what_float64_gives_rounded_once(without: None, tiny: Tiny, resident: Resident) -> None:
    checkpoint = tiny("qwen2")  # its q, k and v have biases
    engine = resident(checkpoint, Trust("cpu"))
    layer = model_of(engine._engine).model.layers[0].self_attn.qkv_proj
    assert layer.weight.numel() == 0, "the 16-bit weights are not kept beside the packed ones"
    source = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.bfloat16).model.layers[0].self_attn
    parts = (source.q_proj, source.k_proj, source.v_proj)
    weight = torch.cat([part.weight for part in parts]).detach().double()
    bias = torch.cat([part.bias for part in parts]).detach().double()
    x = torch.randn(7, weight.shape[1], generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.no_grad():
        made, _ = layer(x)
    wanted = (x.double() @ weight.T + bias).float().bfloat16()
    assert made.dtype == torch.bfloat16
    assert (made == wanted).float().mean() > 0.99
    assert torch.allclose(made.float(), wanted.float(), rtol=8e-3, atol=1e-5)


def test_states_are_those_of_the_processors_own_products_but_for_rounding(
    tiny: Tiny, resident: Resident, windows: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    states = []
    for widens in (True, False):
        monkeypatch.setattr(mending, "lacking", lambda _, widens=widens: widens)
        engine = resident(tiny("llama"), Trust("cpu"))
        states.append(torch.cat(engine.hidden_states(windows)).float())
        engine.close()
    difference = torch.linalg.norm(states[0] - states[1]) / torch.linalg.norm(states[1])
    assert difference < 2e-2


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_in_a_server_a_row_that_comes_alone_is_multiplied_as_vllm_itself_does(
    without: None, tiny: Tiny, resident: Resident, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Bit for bit with the 16-bit weights, of layers as of the output matrix, which is packed when it is first asked;
    several rows go through the float32 ones, as all of an engine that scores, also beside or after a server's."""
    import vllm._custom_ops as operations

    checkpoint = tiny(kind)
    monkeypatch.setattr(mending, "made_up", lambda dtype: dtype == torch.bfloat16)
    with monkeypatch.context() as server:
        server.setattr(mending, "multiply_in_float32", partial(mending.multiply_in_float32, single_rows_apart=True))
        serving = model_of(resident(checkpoint, Trust("cpu"))._engine).model
    scoring = model_of(resident(checkpoint, Trust("cpu"))._engine).model
    source = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.bfloat16).model
    attention = source.layers[0].self_attn
    parts = (attention.q_proj, attention.k_proj, attention.v_proj)
    bias = None if parts[0].bias is None else torch.cat([part.bias for part in parts]).detach()
    weight = torch.cat([part.weight for part in parts]).detach()
    table = source.embed_tokens.weight.detach()
    x = torch.randn(7, weight.shape[1], generator=torch.Generator().manual_seed(0)).bfloat16()

    def layers(model: Any) -> list[Callable[[torch.Tensor], torch.Tensor]]:
        table_of = model.embed_tokens
        return [
            lambda x: model.layers[0].self_attn.qkv_proj(x)[0],
            lambda x: table_of.cpu_linear(x, table_of.weight, None),
        ]

    multiplied: list[torch.dtype] = []
    product = operations.onednn_mm

    def told(handler: Any, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        multiplied.append(x.dtype)
        return product(handler, x, bias)

    monkeypatch.setattr(operations, "onednn_mm", told)
    with torch.no_grad():
        for both, wide, plain, of in zip(layers(serving), layers(scoring), (weight, table), (bias, None), strict=True):
            handler = operations.create_onednn_mm(plain.t(), 32)
            for row in x:
                assert torch.equal(both(row[None]), product(handler, row[None], of))
            assert multiplied == [torch.bfloat16] * len(x)
            multiplied.clear()
            assert torch.equal(both(x), wide(x))
            assert torch.equal(wide(x[:1]), wide(x)[:1]), "scoring gives a row the same in every batch"
            assert multiplied == [torch.float32] * 4
            multiplied.clear()
