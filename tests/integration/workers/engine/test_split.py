"""One model in several processes: gloo ranks on this host stand for GPUs."""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter

from app.contracts.errors import ErrorCode
from app.models.checkpoint import inspect
from app.recipes.recipe import Recipe
from tests.integration.workers.engine.conftest import same
from tests.support.blocks import corrections
from tests.support.packed import FOUR_BIT_FLOATS
from tests.support.refusals import refused
from tests.support.tiny_jobs import Jobs, validated
from workers.distributions.head import Head
from workers.engine.blocks import write
from workers.engine.drafting import DraftEngine
from workers.engine.pool import EnginePool
from workers.engine.room import EngineRoom
from workers.surgery.recipe import apply
from workers.surgery.store import CheckpointStore

Tiny = Callable[..., Path]
Split = Callable[..., EnginePool]


@pytest.fixture
def split(room: EngineRoom) -> Iterator[Split]:
    """`split(tensor, pipeline)`: the shared pool, whose engines are split so until the test ends."""
    whole = room.pool.settings

    def make(tensor: int, pipeline: int = 1) -> EnginePool:
        sizes = {"tensor_parallel_size": tensor, "pipeline_parallel_size": pipeline}
        room.run_as(whole.model_copy(update=sizes))
        return room.pool

    yield make
    room.run_as(whole)


def hidden(pool: EnginePool, checkpoint: Path, windows: list[list[int]]) -> list[torch.Tensor]:
    return pool.loaded(inspect(checkpoint), 128, "bfloat16").hidden_states(windows)


def noise(one: list[torch.Tensor], other: list[torch.Tensor], checkpoint: Path) -> float:
    """Mean KL divergence, in nats per token, between what two engines make of the same text."""
    head = Head.load(checkpoint, dtype=torch.float32)
    first, second = (torch.log_softmax(head.logits(torch.cat(each).float()).double(), -1) for each in (one, other))
    return float((first.exp() * (first - second)).sum(-1).mean())


def test_two_tensor_parts_score_as_one_up_to_rounding(
    tiny: Tiny, pool: EnginePool, split: Split, windows: list[list[int]]
) -> None:
    shared = set(Path("/dev/shm").iterdir())
    whole = hidden(pool, tiny("llama"), windows)
    threads = torch.get_num_threads()
    parted = hidden(split(2), tiny("llama"), windows)
    assert torch.get_num_threads() == threads
    assert not [file for file in set(Path("/dev/shm").iterdir()) - shared if file.name.startswith("vllm")]
    assert not same(whole, parted)  # sums are rounded apart: it is another engine
    for one, other in zip(whole, parted, strict=True):
        assert (one - other).float().norm() < 0.03 * one.float().norm()
    assert 0 < noise(whole, parted, tiny("llama")) < 2e-4


@pytest.mark.slow
def test_two_pipeline_stages_score_bit_for_bit_as_one(
    tiny: Tiny, pool: EnginePool, split: Split, windows: list[list[int]]
) -> None:
    whole = hidden(pool, tiny("llama"), windows)
    assert same(hidden(split(1, 2), tiny("llama"), windows), whole)


@pytest.mark.slow
@pytest.mark.parametrize("parts", [(2, 1), (1, 2)])
def test_what_a_checkpoint_asks_for_beside_weights_is_done_in_parts(
    tiny: Tiny, pool: EnginePool, split: Split, windows: list[list[int]], tmp_path: Path, parts: tuple[int, int]
) -> None:
    """Grids of 4 bits show it if a part had one of its own; in float32 all but a few codes are the same."""
    steps = [{"type": "quantize.activations", "bits": 4}, {"type": "quantize.kv_cache", "k_bits": 4, "v_bits": 4}]
    recipe = TypeAdapter(Recipe).validate_python(steps)
    made = apply(inspect(tiny("llama")), recipe, device="cpu", store=CheckpointStore(tmp_path / "store", 10**9)).path
    folder = Path(shutil.copytree(made, tmp_path / "corrected"))
    write(folder, corrections({0: 4, 1: 2, 2: 4}))
    info = inspect(folder)
    whole = torch.cat(pool.loaded(info, 128, "float32").hidden_states(windows))
    parted = torch.cat(split(*parts).loaded(info, 128, "float32").hidden_states(windows))
    errors_T = (whole - parted).norm(dim=-1) / whole.norm(dim=-1)
    assert float(errors_T.quantile(0.9)) < 1e-4


@pytest.mark.slow
def test_weights_are_swapped_in_every_part(tiny: Tiny, split: Split, windows: list[list[int]]) -> None:
    """The first swap is compared with a fresh start by the engine itself: after it no other start is needed."""
    pool, first, second = split(2), tiny("qwen2"), tiny("qwen2", seed=1)
    starts, swaps = pool.starts, pool.swaps
    before = hidden(pool, first, windows)
    fresh = hidden(pool, second, windows)
    back = hidden(pool, first, windows)
    swapped = hidden(pool, second, windows)
    assert (pool.starts - starts, pool.swaps - swaps) == (2, 2)
    assert same(back, before)
    assert same(swapped, fresh)
    assert not same(before, fresh)


@pytest.mark.slow
def test_a_part_that_ends_fails_its_job_and_the_next_one_runs(
    tiny: Tiny, split: Split, windows: list[list[int]]
) -> None:
    pool = split(2)
    before = hidden(pool, tiny("llama"), windows)
    engine = pool.loaded(inspect(tiny("llama")), 128, "bfloat16")
    engine._engine.model_executor.workers[1].proc.kill()
    with refused(ErrorCode.ENGINE_FAILED, match="a part of the model ended"):
        engine.hidden_states(windows)
    assert not engine.running
    assert same(hidden(pool, tiny("llama"), windows), before)
    idle = pool.loaded(inspect(tiny("llama")), 128, "bfloat16")
    idle._engine.model_executor.workers[1].proc.kill()
    while idle.running:
        time.sleep(0.05)
    assert same(hidden(pool, tiny("llama"), windows), before)


@pytest.mark.slow
def test_what_keeps_a_part_from_starting_is_the_error(
    packed: Callable[..., Path], split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No process here has a kernel for these weights; vLLM says of a part only that it did not start."""
    checkpoint = packed("llama", FOUR_BIT_FLOATS[0])
    monkeypatch.setattr("workers.engine.launch.check_served", lambda *_: None)
    with refused(ErrorCode.CHECKPOINT_UNSUPPORTED, match="kernel"):
        split(2).loaded(inspect(checkpoint), 128, "bfloat16")


def test_tokens_of_a_split_model_are_not_drawn_by_us(tiny: Tiny, split: Split) -> None:
    with refused(ErrorCode.ENGINE_FAILED, match="split"):
        DraftEngine(tiny("llama"), lambda *_: [], pool=split(2), length=64, streams=1)


@pytest.mark.slow
def test_a_comparison_in_two_parts_says_what_one_in_one_says(
    tiny: Tiny,
    home_of: Callable[..., Any],
    room: EngineRoom,
    split: Split,
    windows: list[list[int]],
    tmp_path: Path,
) -> None:
    """By less than the standard deviation that the rounding of two engines gives a mean of so many tokens."""
    checkpoint = tiny("llama")
    asked = validated(
        {
            "kind": "compare",
            "reference": {"model": "tiny"},
            "candidate": {"model": "tiny", "recipe": [{"type": "quantize.rtn", "bits": 4, "group_size": 32}]},
            "text": {"source": "inline", "documents": [{"id": f"d{i}", "text": "a b c d e f " * 40} for i in range(4)]},
            "window": 64,
        }
    )
    whole, parted = (
        Jobs(home_of({"tiny": checkpoint}, tensor_parallel_size=size), room, tmp_path / str(size)).run(asked)
        for size in (1, 2)
    )
    assert whole.provenance.execution != parted.provenance.execution
    assert "2 tensor parts" in parted.provenance.execution
    between = noise(hidden(split(1), checkpoint, windows), hidden(split(2), checkpoint, windows), checkpoint)
    one, two = whole.divergence.kl.mean, parted.divergence.kl.mean
    assert one > 10 * between
    assert abs(one - two) < between**0.5 * one**0.5
