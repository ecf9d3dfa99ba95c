"""Which model fits which GPU: reckoned from published sizes, since no GPU is at hand here."""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import CheckpointInfo, inspect
from app.settings import Settings
from tests.support.published_models import CARDS, MODELS, bytes_of, info_of
from workers.calibration.verified.models import kept_tokens
from workers.engine import pool as module
from workers.engine.launch import EngineOptions
from workers.engine.pool import EnginePool, needed_bytes
from workers.engine.resident import ResidentEngine
from workers.engine.serving.arguments import gpu_cache_bytes
from workers.engine.sizes import kv_cache_bytes, scorer_bytes
from workers.engine.split import Split

Tiny = Callable[..., Path]
LENGTH = 4096


def scored_bytes(info: CheckpointInfo) -> int:
    cache = kv_cache_bytes(info, Settings(), "bfloat16", LENGTH)
    options = EngineOptions(info.path, info.architecture, "pooling", "cuda", "bfloat16", LENGTH, LENGTH, 256, cache)
    return needed_bytes(info, options)


@pytest.mark.parametrize(
    ("name", "scored", "served", "quarter"),
    [  # by one engine; by one replica with the whole card; with the default share
        ("Qwen2.5-0.5B", {24, 40, 80, 141}, {24, 40, 80, 141}, {24, 40, 80, 141}),
        ("Llama-3.2-3B", {24, 40, 80, 141}, {24, 40, 80, 141}, {40, 80, 141}),
        ("Llama-3.1-8B", {24, 40, 80, 141}, {24, 40, 80, 141}, {80, 141}),
        ("Qwen2.5-14B", {40, 80, 141}, {40, 80, 141}, {141}),
        ("Qwen2.5-32B", {80, 141}, {80, 141}, set()),
        ("Llama-3.1-70B", {141}, {141}, set()),
    ],
)
def test_which_card_holds_which_model(
    tiny: Tiny, name: str, scored: set[int], served: set[int], quarter: set[int]
) -> None:
    info = info_of(name, tiny)

    def serves(card: int, share: float) -> bool:
        settings = Settings(share_serving=share)
        try:
            gpu_cache_bytes(info, settings, dtype="bfloat16", max_model_len=LENGTH, total=bytes_of(card))
        except HemostatError as error:
            assert error.code is ErrorCode.ENGINE_OUT_OF_MEMORY
            return False
        return True

    context = 512 * 1024**2  # of CUDA, in the process of the engine
    assert {card for card in CARDS if scored_bytes(info) <= bytes_of(card) - context} == scored
    assert {card for card in CARDS if serves(card, 1.0)} == served
    assert {card for card in CARDS if serves(card, Settings().share_serving)} == quarter


@pytest.mark.parametrize(
    ("name", "worker", "shadow", "verify"),
    [  # cards whose default shares hold a worker's engine; one model and the scores of the shadow; verified decoding
        ("Qwen2.5-0.5B", {24, 40, 80, 141}, {40, 80, 141}, {40, 80, 141}),
        ("Llama-3.2-3B", {40, 80, 141}, {141}, set()),
        ("Llama-3.1-8B", {141}, set(), set()),
        ("Qwen2.5-14B", set(), set(), set()),
        ("Qwen2.5-32B", set(), set(), set()),
        ("Llama-3.1-70B", set(), set(), set()),
    ],
)
def test_which_card_holds_what_is_beside_a_replica_by_the_default_shares(
    tiny: Tiny, name: str, worker: set[int], shadow: set[int], verify: set[int]
) -> None:
    info, settings = info_of(name, tiny), Settings()

    def verifies(card: int) -> bool:
        head = 4 * info.vocabulary * info.hidden_size
        budget = int(settings.share_verify * bytes_of(card)) - head
        try:
            kept_tokens((info, info), budget, "bfloat16", settings.verify_context, settings.verify_streams, "cuda")
        except HemostatError as error:
            assert error.code is ErrorCode.ENGINE_OUT_OF_MEMORY
            return False
        return True

    scores = scorer_bytes(info, info, "cuda", "bfloat16", same=True)
    assert {card for card in CARDS if scored_bytes(info) <= settings.share_diagnosis * bytes_of(card)} == worker
    assert {card for card in CARDS if scored_bytes(info) + scores <= settings.share_shadow * bytes_of(card)} == shadow
    assert {card for card in CARDS if verifies(card)} == verify


@pytest.mark.parametrize("name", MODELS)
def test_a_replica_keeps_to_its_share_and_a_refusal_names_the_share_that_is_enough(tiny: Tiny, name: str) -> None:
    info, total = info_of(name, tiny), bytes_of(141)
    parameters, layers, hidden, _, kv_heads, _, vocabulary = MODELS[name]
    besides = 2 * parameters + 1024**3 + 3 * 4 * 256 * vocabulary + 3 * 4 * layers * hidden * (2 * 64 + 1)

    def cache(share: float) -> int:
        return gpu_cache_bytes(info, Settings(share_serving=share), dtype="bfloat16", max_model_len=LENGTH, total=total)

    assert cache(1.0) == total - besides
    least = besides + (LENGTH + 128) * 2 * layers * kv_heads * info.config["head_dim"] * 2
    enough = math.ceil(100 * least / total) / 100
    assert cache(enough) >= (LENGTH + 128) * 2 * layers * kv_heads * info.config["head_dim"] * 2
    with pytest.raises(HemostatError, match="HEMOSTAT_SHARE_SERVING") as caught:
        cache(enough - 0.01)
    assert f"set it to {enough:g}," in caught.value.hint


def test_the_workers_engines_keep_to_its_share_of_a_gpu_where_there_are_deployments(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """70 GB of an H100 are free, and 4 GB held by this process."""
    monkeypatch.setattr(module, "pick_device", lambda _: "cuda")
    monkeypatch.setattr(module, "available_bytes", lambda _: 70 * 10**9)
    monkeypatch.setattr(module, "total_bytes", lambda _: bytes_of(80))
    monkeypatch.setattr(module, "held_bytes", lambda _: 4 * 10**9)
    fractions: list[float] = []
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", fractions.append)
    pool = EnginePool(Settings(share_diagnosis=0.2))
    pool.take_share(1.0)
    needed = scored_bytes(info_of("Llama-3.1-8B", tiny))
    pool.make_room(needed)
    pool.take_share(0.2)
    pool.make_room(int(0.2 * bytes_of(80)) - 4 * 10**9)
    with pytest.raises(HemostatError, match=r"needs about 18\.31 GB .* 13\.10 GB are free.* holds 4\.00 GB") as caught:
        pool.make_room(needed)
    assert "HEMOSTAT_SHARE_DIAGNOSIS" in caught.value.hint
    pool.take_share(0.2)
    pool.take_share(1.0)
    pool.make_room(needed)
    assert fractions == [0.2, 1.0]
    pool.take_share(0.2)
    pool.device = "cpu"  # where memory that nobody uses is lent
    pool.make_room(needed)


def test_an_engine_that_lost_a_part_while_idle_is_ended_before_the_next_job_needs_room(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM's executor says so, and answers nothing any more."""
    monkeypatch.setattr(module, "pick_device", lambda _: "cuda")
    monkeypatch.setattr(module, "available_bytes", lambda _: 70 * 10**9)
    monkeypatch.setattr(module, "total_bytes", lambda _: bytes_of(80))
    monkeypatch.setattr(module, "held_bytes", lambda _: 0)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda _: None)
    pool, info = EnginePool(Settings()), inspect(tiny("llama"))
    pool.take_share(0.2)
    split = Split(2, 1)
    options = EngineOptions(
        info.path, info.architecture, "pooling", "cuda", "bfloat16", LENGTH, LENGTH, 256, 10**6, split=split
    )
    ended, idle = [], ResidentEngine(options, pool._trust)
    idle._engine = SimpleNamespace(
        model_executor=SimpleNamespace(is_failed=True),
        engine_core=SimpleNamespace(shutdown=lambda: ended.append(True)),
    )
    pool._warm[("shape", "bfloat16", LENGTH, split)] = idle
    pool.make_room(10**9)
    assert ended
    assert not pool._warm
