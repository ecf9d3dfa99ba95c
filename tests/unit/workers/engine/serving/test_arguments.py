"""What the server is started with: memory, context, environment."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from app.contracts.errors import ErrorCode
from app.models.checkpoint import inspect
from app.settings import Settings
from tests.support.refusals import refused
from workers import products
from workers.engine.serving import arguments, plugin, processor
from workers.engine.serving.arguments import (
    IN_PROCESS,
    TRACKER,
    ServerPlan,
    cache_bytes,
    check_room,
    context_limit,
    gpu_cache_bytes,
    has_room_for_single_rows,
    server_arguments,
    server_environment,
)
from workers.engine.serving.config import VARIABLE
from workers.engine.sizes import OVERHEAD_BYTES, single_row_bytes, weight_bytes

Tiny = Callable[..., Path]
TOKEN = 2 * 3 * 1 * 32 * 2  # keys and values, layers, heads, their size, bytes


def test_the_cache_takes_what_is_left_of_the_share_between_one_request_and_all(tiny: Tiny) -> None:
    info, settings = inspect(tiny("llama")), Settings(share_serving=0.5)

    def size(total: int, length: int = 256) -> int:
        return cache_bytes(info, settings, dtype="bfloat16", max_model_len=length, total=total)

    weights = weight_bytes(info, "bfloat16", "cpu", head=True)
    assert size(1 << 40) == 64 * 256 * TOKEN
    assert size(1 << 40, length=8192) == 64 * 1024 * TOKEN
    assert size(0) == (256 + 128) * TOKEN
    assert size(2 * (weights + 1000 * TOKEN)) == 1000 * TOKEN


def test_the_context_is_the_models_or_shorter(tiny: Tiny) -> None:
    info = inspect(tiny("llama"))
    assert context_limit(info, None) == 256
    assert context_limit(info, 64) == 64
    with refused(ErrorCode.CONTEXT_EXCEEDED):
        context_limit(info, 257)


def test_a_model_that_does_not_fit_is_refused(tiny: Tiny) -> None:
    info = inspect(tiny("llama"))
    check_room(info, dtype="bfloat16", kv_cache_bytes=1 << 20)
    with refused(ErrorCode.ENGINE_OUT_OF_MEMORY):
        check_room(info, dtype="bfloat16", kv_cache_bytes=1 << 60)


def test_a_repair_takes_room_beside_the_weights(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    info, settings = inspect(tiny("llama")), Settings(share_serving=0.5)
    total = 2 * (weight_bytes(info, "bfloat16", "cpu", head=True) + 2000 * TOKEN)

    def size() -> int:
        return cache_bytes(info, settings, dtype="bfloat16", max_model_len=256, total=total)

    without = size()
    monkeypatch.setattr(arguments, "repair_bytes", lambda _: 500 * TOKEN)
    assert size() == without - 500 * TOKEN
    monkeypatch.setattr(arguments, "repair_bytes", lambda _: 1 << 60)
    with refused(ErrorCode.ENGINE_OUT_OF_MEMORY):
        check_room(info, dtype="bfloat16", kv_cache_bytes=1 << 20)


@pytest.mark.parametrize("made", [True, False])
def test_single_rows_get_weights_of_their_own_where_they_gain_by_them_and_there_is_room(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, made: bool
) -> None:
    info, settings, cache = inspect(tiny("llama")), Settings(share_serving=0.5), 1 << 20
    monkeypatch.setattr(products, "lacking", lambda dtype: dtype == torch.bfloat16)
    monkeypatch.setattr(products, "made_up", lambda dtype: made and dtype == torch.bfloat16)
    needed = weight_bytes(info, "bfloat16", "cpu", head=True) + cache + single_row_bytes(info, "bfloat16", "cpu")
    needed += OVERHEAD_BYTES

    def room(free: int, total: int, dtype: str = "bfloat16") -> bool:
        monkeypatch.setattr(arguments, "available_bytes", lambda _: free)
        return has_room_for_single_rows(info, settings, dtype=dtype, kv_cache_bytes=cache, total=total)

    assert room(needed, 2 * needed) is made
    assert not room(needed - 1, 2 * needed), "into what is free"
    assert not room(needed, 2 * needed - 2), "into the share"
    assert not room(1 << 40, 1 << 40, "float32")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_plain_and_hooked_servers_differ_in_the_hook_alone(tiny: Tiny, device: str) -> None:
    info = inspect(tiny("llama"))

    def arguments(*, hooked: bool) -> list[str]:
        plan = ServerPlan("name", info, info.path, "bfloat16", device, "127.0.0.1", 1234, 256, 1 << 20, hooked=hooked)
        return server_arguments(plan, Settings(share_serving=0.4))

    assert arguments(hooked=True) == [*arguments(hooked=False), "--logits-processors", TRACKER]
    assert ("--gpu-memory-utilization" in arguments(hooked=True)) == (device == "cuda")
    given = arguments(hooked=True)
    assert given[given.index("--kv-cache-memory-bytes") + 1] == str(1 << 20), "vLLM does not measure"
    assert IN_PROCESS in arguments(hooked=True), "its steps are watched"


def test_a_replica_is_split_into_tensor_parts_of_one_host_alone(tiny: Tiny) -> None:
    info = inspect(tiny("llama"))
    plan = ServerPlan("name", info, info.path, "bfloat16", "cpu", "127.0.0.1", 1234, 256, 1 << 20)
    given = server_arguments(plan, Settings(tensor_parallel_size=2))
    assert given[given.index("--tensor-parallel-size") + 1] == "2"
    assert given[given.index("--distributed-executor-backend") + 1] == "mp"
    with refused(ErrorCode.ENGINE_FAILED, match="on one host"):
        server_arguments(plan, Settings(tensor_parallel_size=2, engine_executor="ray"))


def test_processes_of_a_replica_share_its_threads_and_each_has_its_part_of_the_cache(tiny: Tiny) -> None:
    for given, ranks, expected in (("16", 4, "4"), ("16,2", 4, "4"), ("16,2", 1, "16,2")):
        environment = server_environment(None, {"OMP_NUM_THREADS": given}, device="cpu", ranks=ranks)
        assert environment["OMP_NUM_THREADS"] == expected
    info, total = inspect(tiny("llama")), 1 << 34

    def cache(size: int) -> int:
        settings = Settings(tensor_parallel_size=size, share_serving=0.5)
        return gpu_cache_bytes(info, settings, dtype="bfloat16", max_model_len=256, total=total)

    weights = weight_bytes(info, "bfloat16", "cuda", head=True)
    assert cache(2) - cache(1) == weights - weights // 2


def test_the_server_reads_what_was_looked_into_whatever_lies_beside_it(tiny: Tiny) -> None:
    info = inspect(tiny("llama"))
    plan = ServerPlan("name", info, info.path, "bfloat16", "cpu", "127.0.0.1", 1234, 256, 1 << 20, hooked=False)
    arguments = server_arguments(plan, Settings())
    for name, value in (("--config-format", "hf"), ("--tokenizer-mode", "hf"), ("--load-format", "safetensors")):
        assert arguments[arguments.index(name) + 1] == value


def test_the_environment_chooses_runner_and_plugin_whatever_was_set() -> None:
    base = {"VLLM_USE_V2_MODEL_RUNNER": "1", "VLLM_PLUGINS": "other", VARIABLE: "/elsewhere"}
    hooked = server_environment(Path("/here/serving.json"), base, device="cpu")
    assert hooked["VLLM_USE_V2_MODEL_RUNNER"] == "0"
    assert hooked["VLLM_PLUGINS"] == plugin.NAME
    assert hooked[VARIABLE] == "/here/serving.json"
    plain = server_environment(None, base, device="cpu")
    assert plain["VLLM_PLUGINS"] == ""
    assert VARIABLE not in plain


def test_a_server_on_a_gpu_has_as_many_threads_as_vllm_chooses() -> None:
    base = {"OMP_NUM_THREADS": "16"}
    assert "OMP_NUM_THREADS" not in server_environment(None, base, device="cuda")
    assert server_environment(None, base, device="cpu")["OMP_NUM_THREADS"] == "16"


def test_the_plugin_is_installed_under_its_name() -> None:
    from importlib.metadata import entry_points

    found = [one for one in entry_points(group="vllm.general_plugins") if one.name == plugin.NAME]
    assert [one.load() for one in found] == [plugin.register]
    assert processor.NAME == TRACKER
