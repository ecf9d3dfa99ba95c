import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from app.contracts.errors import ErrorCode
from app.models.checkpoint import inspect
from app.settings import Settings
from tests.support.refusals import refused
from workers.engine.shape import kv_bytes_per_token
from workers.engine.sizes import PROCESS_BYTES, engine_bytes, kv_cache_bytes
from workers.engine.split import WHOLE, Split


def test_the_settings_say_it_and_vllm_is_told_only_of_parts() -> None:
    split = Split.of(Settings(tensor_parallel_size=4, pipeline_parallel_size=2, engine_executor="ray"))
    assert (split.ranks, str(split)) == (8, "4 tensor parts and 2 pipeline stages")
    assert split.arguments() == {
        "tensor_parallel_size": 4,
        "pipeline_parallel_size": 2,
        "distributed_executor_backend": "ray",
    }
    assert Split.of(Settings()) == WHOLE
    assert (str(WHOLE), WHOLE.arguments()) == ("", {})


def test_ray_is_asked_for_only_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.engine.split.find_spec", lambda _: None)
    with refused(ErrorCode.ENGINE_FAILED, match="ray, which is not installed"):
        Split(tensor=2, executor="ray").check("cuda")
    Split(executor="ray").check("cuda")  # nothing is split


def test_a_host_has_a_gpu_for_each_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    Split(tensor=2, pipeline=2).check("cuda")
    with refused(ErrorCode.ENGINE_FAILED, match="4 x 2 parts, and 4 GPUs"):
        Split(tensor=4, pipeline=2).check("cuda")
    Split(tensor=4, pipeline=2).check("cpu")


def test_processes_share_the_threads_while_they_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    monkeypatch.setenv("OMP_NUM_THREADS", "16")
    monkeypatch.delenv("OTHER", raising=False)
    with Split(tensor=4).environment({"OTHER": "x"}):
        assert (os.environ["OMP_NUM_THREADS"], os.environ["OTHER"]) == ("4", "x")
    assert os.environ["OMP_NUM_THREADS"] == "16"
    assert "OTHER" not in os.environ


def test_keys_and_values_of_a_part(tiny: Callable[..., Path]) -> None:
    """Of 7 layers with 8 heads of 128, in bf16: keys and values of 4 layers and 2 heads."""
    config = {"num_hidden_layers": 7, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128}
    assert kv_bytes_per_token(config, 2) == 2 * 7 * 8 * 128 * 2
    assert kv_bytes_per_token(config, 2, Split(tensor=4, pipeline=2)) == 2 * 4 * 2 * 128 * 2
    assert kv_bytes_per_token(config, 2, Split(tensor=32)) == 2 * 7 * 1 * 128 * 2  # a head is not split
    info = inspect(tiny("llama"))
    least = Settings(engine_kv_cache_bytes=1024**2, pipeline_parallel_size=3)
    assert kv_cache_bytes(info, least, "bfloat16", 100_000) < kv_cache_bytes(
        info, Settings(engine_kv_cache_bytes=1024**2), "bfloat16", 100_000
    )


def test_a_gpu_holds_its_part_and_a_host_all_of_them() -> None:
    split, gib, overhead = Split(tensor=4), 1024**3, 256 * 1024**2
    assert engine_bytes(140 * gib, 2 * gib, split, "cuda") == 37 * gib + overhead
    assert engine_bytes(140 * gib, 2 * gib, split, "cpu") == 148 * gib + 4 * (overhead + PROCESS_BYTES)
    assert engine_bytes(140 * gib, 2 * gib, WHOLE, "cpu") == 142 * gib + overhead
