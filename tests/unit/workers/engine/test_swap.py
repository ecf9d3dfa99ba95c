import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from app.contracts.errors import ErrorCode
from app.models.checkpoint import inspect
from tests.support.refusals import refused
from workers.engine import launch, swap
from workers.engine.errors import translate
from workers.engine.launch import EngineOptions
from workers.engine.resident import ResidentEngine
from workers.engine.split import Split
from workers.engine.swap import PROVEN, Trust
from workers.process.failures import spoils


def test_what_is_proven_needs_no_comparison_and_the_rest_does(tiny: Callable[..., Path]) -> None:
    llama, qwen = inspect(tiny("llama")), inspect(tiny("qwen2"))
    trust = Trust("cpu", frozenset({("cpu", "LlamaForCausalLM", "plain")}))
    assert trust.proven(llama)
    assert not trust.proven(qwen)
    assert not trust.refused(qwen)
    assert not Trust("cuda", PROVEN).proven(llama)


def test_the_outcome_of_a_comparison_is_kept(tiny: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    llama, qwen = inspect(tiny("llama")), inspect(tiny("qwen2"))
    trust = Trust("cpu", frozenset({("cpu", "LlamaForCausalLM", "plain")}))
    trust.record(qwen, exact=True)
    assert trust.proven(qwen)
    with caplog.at_level(logging.WARNING):
        trust.record(llama, exact=False)
    assert trust.refused(llama)
    assert not trust.proven(llama)
    assert "LlamaForCausalLM" in caplog.text


def test_what_is_proven_of_a_whole_model_is_not_of_its_parts(tiny: Callable[..., Path]) -> None:
    llama, parts = inspect(tiny("llama")), Split(tensor=2)
    trust = Trust("cpu")
    assert trust.proven(llama)
    assert not trust.proven(llama, parts)
    trust.record(llama, parts, exact=False)
    assert trust.refused(llama, parts)
    assert trust.proven(llama)


@pytest.mark.parametrize("at_reload", [True, False])
def test_a_gpu_that_fails_in_a_swap_is_no_word_against_swaps(
    tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, at_reload: bool
) -> None:
    """Neither where the weights are read nor where the swapped engine is first asked."""
    illegal = torch.AcceleratorError("an illegal memory access was encountered")

    def read(*_: object) -> None:
        if at_reload:
            raise illegal

    def asked(_: object) -> torch.Tensor:
        raise translate(illegal, "while scoring") from illegal

    info, trust = inspect(tiny("llama")), Trust("cuda")
    options = EngineOptions(info.path, info.architecture, "pooling", "cuda", "bfloat16", 128, 128, 128, 1000)
    engine = ResidentEngine(options, trust)
    engine._engine, engine._info = object(), info
    monkeypatch.setattr(swap, "reload_weights", read)
    monkeypatch.setattr(engine, "_probe", asked)
    monkeypatch.setattr(launch, "stop", lambda _: None)
    with refused(ErrorCode.ENGINE_FAILED, match="illegal memory access") as caught:
        engine.load(info)
    assert spoils(caught.value)
    assert not trust.refused(info)
    assert not engine.running
