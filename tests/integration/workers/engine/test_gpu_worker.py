"""What vLLM's GPU worker does to its process and the CPU worker does not, done to engines on a CPU."""

import gc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.integration.workers.engine.conftest import same
from tests.support.engines import model_of
from workers.engine.launch import load_vllm
from workers.engine.resident import ResidentEngine
from workers.engine.swap import Trust

Tiny = Callable[..., Path]
Resident = Callable[[Path, Trust], ResidentEngine]


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The two steps of `gpu_worker.py` that `cpu_worker.py` leaves out, by the GPU worker's own names."""
    load_vllm()
    from vllm.v1.worker import gpu_worker
    from vllm.v1.worker.cpu_worker import CPUWorker

    init, warm_up = CPUWorker.init_device, CPUWorker.compile_or_warm_up_model

    def init_device(self: Any) -> None:
        init(self)
        gpu_worker.init_workspace_manager(torch.device("cpu"), 1, 1)

    def compile_or_warm_up_model(self: Any) -> Any:
        times = warm_up(self)
        gpu_worker.freeze_gc_heap()
        return times

    monkeypatch.setattr(CPUWorker, "init_device", init_device)
    monkeypatch.setattr(CPUWorker, "compile_or_warm_up_model", compile_or_warm_up_model)
    yield
    gc.unfreeze()  # where a test failed


def test_an_engine_that_ends_frees_its_weights(as_on_a_gpu: None, tiny: Tiny, resident: Resident) -> None:
    engine = resident(tiny("llama"), Trust("cpu"))
    weights = [weakref.ref(weight) for weight in model_of(engine._engine).parameters()]
    assert weights
    engine.close()
    assert [weight for weight in weights if weight() is not None] == []


def test_each_engine_works_in_its_own_workspace_whichever_started_or_ended_since(
    as_on_a_gpu: None, tiny: Tiny, resident: Resident, windows: list[list[int]]
) -> None:
    from vllm.v1.worker.workspace import current_workspace_manager

    met: list[Any] = []

    def look(engine: ResidentEngine) -> Any:
        """The workspace that a layer meets in a forward pass."""
        layer = model_of(engine._engine).model.layers[0]
        hook = layer.register_forward_pre_hook(lambda *_: met.append(current_workspace_manager()))
        states.append(engine.hidden_states(windows))
        hook.remove()
        return met[-1]

    states: list[list[torch.Tensor]] = []
    first = resident(tiny("llama"), Trust("cpu"))
    own = look(first)
    second = resident(tiny("llama", seed=1), Trust("cpu"))
    other = look(second)
    assert other is not own
    assert look(first) is own
    second.close()
    assert look(first) is own
    assert same(states[2], states[0])
    assert same(states[3], states[0])
