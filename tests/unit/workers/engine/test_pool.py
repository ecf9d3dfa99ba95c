from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from app.models.checkpoint import inspect
from app.settings import Settings
from workers.engine.launch import EngineOptions
from workers.engine.pool import context_length, kv_cache_bytes, needed_bytes, resolve_dtype, step_tokens

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


def test_a_step_is_shorter_for_a_larger_model_and_never_longer_than_allowed(tiny: Tiny) -> None:
    info = inspect(tiny("llama"))
    settings = Settings(engine_batch_tokens=4096)
    layer = info.tensors["model.norm.weight"]

    def of(parameters: int) -> int:
        return step_tokens(replace(info, tensors={"w": replace(layer, shape=(parameters,))}), settings, "cpu")

    assert of(135_000_000) == 3703
    assert of(1_000_000_000) == 500
    assert of(70_000_000_000) == 128
    assert of(1) == 4096
    assert step_tokens(info, settings, "cuda") == 4096


def test_the_cache_holds_a_step_and_at_least_what_the_settings_say(tiny: Tiny) -> None:
    info = inspect(tiny("llama"))
    per_token = 3 * 2 * 32 * 2
    small = Settings(engine_kv_cache_bytes=1024 * 1024)
    assert kv_cache_bytes(info, small, "bfloat16", 4096) == (4096 + 8 * 128) * per_token
    assert kv_cache_bytes(info, small, "float32", 4096) == (4096 + 8 * 128) * per_token * 2
    assert kv_cache_bytes(info, Settings(engine_kv_cache_bytes=1 << 30), "bfloat16", 4096) == 1 << 30


def test_plain_weights_are_counted_in_the_engines_dtype(tiny: Tiny) -> None:
    info = inspect(tiny("llama"))
    weights = sum(tensor.elements for tensor in info.tensors.values())
    options = EngineOptions(info.path, info.architecture, "pooling", "cpu", "bfloat16", 128, 128, 128, 1000)
    one = needed_bytes(info, options)
    assert needed_bytes(info, replace(options, dtype="float32")) - one == 2 * weights
    assert needed_bytes(info, replace(options, kv_cache_bytes=5000)) - one == 4000


def test_auto_is_one_dtype_for_all() -> None:
    assert resolve_dtype("auto") == "bfloat16"
    assert resolve_dtype("float32") == "float32"
    with pytest.raises(ValueError, match="float64"):
        resolve_dtype("float64")
