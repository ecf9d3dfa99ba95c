from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from app.models.checkpoint import inspect
from workers.engine.launch import EngineOptions
from workers.engine.pool import context_length, needed_bytes, resolve_dtype

Tiny = Callable[..., Path]


def test_windows_of_like_length_share_a_context(tiny: Tiny) -> None:
    info = replace(inspect(tiny("llama")), max_position=8192)
    assert [context_length(info, wanted) for wanted in (2, 128, 129, 256, 300, 512, 513)] == [
        128, 128, 256, 256, 512, 512, 1024,
    ]  # fmt: skip


def test_a_context_is_never_longer_than_the_models_unless_asked_for(tiny: Tiny) -> None:
    info = replace(inspect(tiny("llama")), max_position=300)
    assert context_length(info, 260) == 300
    assert context_length(info, 300) == 300
    assert context_length(info, 301) == 301  # vLLM allows it where RoPE is scaled, and refuses it elsewhere
    assert context_length(replace(info, max_position=64), 32) == 64


def test_an_engine_needs_its_weights_its_cache_and_some_room_to_work(tiny: Tiny) -> None:
    info = inspect(tiny("llama"))
    options = EngineOptions(info.path, info.architecture, "pooling", "cuda", "bfloat16", 128, 128, 128, 1000)
    one = needed_bytes(info, options)
    divergence = 2 * info.vocabulary * info.hidden_size + 4 * 512 * info.vocabulary
    assert one == 2 * sum(tensor.elements for tensor in info.tensors.values()) + 1000 + 256 * 1024**2 + divergence
    assert one - needed_bytes(info, replace(options, runner="generate")) == divergence
    assert needed_bytes(info, replace(options, kv_cache_bytes=5000)) - one == 4000


def test_auto_is_one_dtype_for_all() -> None:
    assert resolve_dtype("auto") == "bfloat16"
    assert resolve_dtype("float32") == "float32"
    with pytest.raises(ValueError, match="float64"):
        resolve_dtype("float64")
