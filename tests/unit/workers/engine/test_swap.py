import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from app.models.checkpoint import inspect
from workers.engine.split import Split
from workers.engine.swap import PROVEN, Trust


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
