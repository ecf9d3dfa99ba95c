"""vLLM's executor, a worker whose call does not come back, and the door."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from workers.engine.isolation import quiet_vllm
from workers.engine.serving.arguments import IN_PROCESS
from workers.engine.serving.nonfinite import EndedRequests
from workers.engine.serving.status import StatusServer
from workers.engine.serving.steps import STEP

with quiet_vllm():
    from vllm.utils.import_utils import resolve_obj_by_qualname
    from vllm.v1.executor.uniproc_executor import UniProcExecutor


class Worker:
    """Does not come back until it may."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.leave = threading.Event()

    def execute_model(self, scheduled: str) -> str:
        return self._step(f"executed {scheduled}")

    def sample_tokens(self, grammar: str) -> str:
        return self._step(f"drawn with {grammar}")

    def _step(self, answer: str) -> str:
        self.entered.set()
        self.leave.wait()
        return answer


@pytest.fixture
def livez() -> Iterator[Callable[[], dict[str, Any]]]:
    door = StatusServer(
        "127.0.0.1",
        0,
        registry=CollectorRegistry(),
        versions=dict,
        ended=EndedRequests(),
        step_s=STEP.seconds,
        secret="a secret",
    )
    with httpx.Client(base_url=f"http://127.0.0.1:{door.port}", timeout=60.0, trust_env=False) as client:
        yield lambda: client.get("/livez").json()
    door.close()


@pytest.mark.parametrize(
    ("method", "given", "expected"),
    [("execute_model", "a batch", "executed a batch"), ("sample_tokens", "a grammar", "drawn with a grammar")],
)
@pytest.mark.parametrize("non_block", [False, True])
def test_the_door_tells_how_long_a_step_has_run_that_does_not_come_back(
    livez: Callable[[], dict[str, Any]], method: str, given: str, expected: str, non_block: bool
) -> None:
    executor_class = resolve_obj_by_qualname(IN_PROCESS)
    assert issubclass(executor_class, UniProcExecutor)
    executor = executor_class.__new__(executor_class)  # without a model
    executor.driver_worker = worker = Worker()
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(getattr(executor, method)(given, non_block=non_block)))
    assert livez() == {"status": "ok", "step_s": None}
    thread.start()
    try:
        assert worker.entered.wait(60)
        first = livez()["step_s"]
        assert 0 <= first < livez()["step_s"]
    finally:
        worker.leave.set()
        thread.join()
    assert (got[0].result() if non_block else got[0]) == expected
    assert livez()["step_s"] is None
