"""A sweep for flips over the real API: checked before it runs, and what it says on the way.

In place of scoring, a worker ends each job that it claims with a report made by hand.
"""

import asyncio
import copy
import io
import json
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from rich.console import Console

from app.cli.client import Client
from app.cli.flips_sweep import Step, Swept, steps_of, sweep
from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.job import JobStatus, job_error
from app.jobs.connection import connect
from app.jobs.store import Claim, JobStore
from app.settings import Settings
from tests.integration.app.conftest import Server, SharedServer
from tests.support.tasks_reports import task, tasks_report
from workers.measuring.assemble import repeatable

Json = dict[str, Any]
End = Literal["broken", "away"]
RECIPES = ("quantize.rtn:bits=8,group_size=64", "quantize.rtn:bits=4,group_size=64", "prune.magnitude:sparsity=0.3")


@dataclass
class Service:
    """The API, and a worker that ends the n-th job that it claims as `ends` says: else it succeeds with `outcome`."""

    server: Server
    settings: Settings
    ends: Mapping[int, End] = field(default_factory=dict)
    outcome: str = "worse"
    claimed: int = 0
    _leave: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """While it works."""
        worker = threading.Thread(target=lambda: asyncio.run(self._work()), daemon=True)
        worker.start()
        try:
            yield
        finally:
            self._leave.set()
            worker.join(30)
            assert not worker.is_alive()

    async def _work(self) -> None:
        redis = connect(self.settings)
        store = JobStore(redis, self.settings)
        while not self._leave.is_set():
            for job_id in await store.ids(JobStatus.QUEUED):
                claim = await store.claim(job_id, "w1")
                if claim is not None:
                    number, self.claimed = self.claimed, self.claimed + 1
                    await self._end(store, claim, number)
            await asyncio.sleep(0.02)
        await redis.aclose()

    async def _end(self, store: JobStore, claim: Claim, number: int) -> None:
        end = self.ends.get(number)
        if end == "broken":
            error = job_error(ErrorCode.ENGINE_FAILED, "the engine ended", "look at its log")
            assert await store.fail(claim.job_id, claim.attempt, error)
        elif end == "away":
            self.server.end(signal.SIGKILL)
        else:
            assert await self._finish(store, claim)

    async def _finish(self, store: JobStore, claim: Claim) -> bool:
        report = copy.deepcopy(tasks_report(task("example", self.outcome, items=206)))
        report["request"] = repeatable(claim.request)
        folder = self.settings.job_dir(claim.job_id) / f"attempt-{claim.attempt}"
        folder.mkdir(parents=True)
        (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")
        name = f"attempt-{claim.attempt}/report.json"
        return await store.finish(claim.job_id, claim.attempt, report=name, severity="mild")


@pytest.fixture(scope="module")
def shared(
    shared_server: SharedServer, tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """One API for all tests: each asks of a number of documents of its own, so that none finds another's jobs."""
    shared_server.renew(tmp_path_factory.mktemp("service") / "home")
    settings = shared_server.settings
    folders = [tiny("llama", max_position_embeddings=1024, seed=seed) for seed in (0, 1)]
    named = zip(("tiny", "other"), folders, strict=True)
    settings.models_file.write_text("".join(f'[models.{name}]\npath = "{folder}"\n' for name, folder in named))
    made = Server(settings.model_copy(update={"requests_per_minute": 100_000, "sse_poll_s": 0.2}))
    made.start()
    yield made
    made.stop()


@pytest.fixture
def service(shared: Server) -> Callable[..., Service]:
    def made(**options: Any) -> Service:
        return Service(shared, shared.settings, **options)

    return made


def steps(documents: int, *recipes: str) -> list[Step]:
    return steps_of("tiny", recipes or RECIPES, None, documents)


def swept(of: Service, asked: list[Step]) -> tuple[Swept | BaseException, str]:
    """What came of it, and what was said."""
    stream = io.StringIO()
    with of.at_work(), Client(of.server.url) as client:
        try:
            return sweep(client, asked, Console(file=stream, width=200)), stream.getvalue()
        except (HemostatError, KeyboardInterrupt) as error:
            return error, stream.getvalue()


def test_a_recipe_that_is_refused_is_named_before_any_is_run(service: Callable[..., Service]) -> None:
    of = service()
    wrong = "prune.magnitude:sparsity=1.5"
    error, _ = swept(of, steps(24, *RECIPES[:2], wrong))
    assert isinstance(error, HemostatError)
    assert error.detail.startswith(f"{wrong}: ")
    assert error.pointer is not None
    assert error.pointer.startswith("/candidate/recipe/0")
    assert of.claimed == 0


def test_a_recipe_that_fails_is_passed_over_and_told(service: Callable[..., Service]) -> None:
    found, said = swept(service(ends={1: "broken"}), steps(19))
    assert isinstance(found, Swept)
    assert list(found.jobs) == [RECIPES[0], RECIPES[2]]
    assert f"{RECIPES[1]} failed: the engine ended (engine_failed)" in said
    assert found.told == [
        {"recipe": RECIPES[0], "job": found.jobs[RECIPES[0]]},
        {"recipe": RECIPES[2], "job": found.jobs[RECIPES[2]]},
        {"recipe": RECIPES[1], "error": "engine_failed"},
    ]


def test_where_all_fail_the_first_failure_is_the_commands(service: Callable[..., Service]) -> None:
    of = service(ends=dict.fromkeys(range(3), "broken"))
    error, _ = swept(of, steps(18))
    assert isinstance(error, HemostatError)
    assert (error.code, error.detail) == (ErrorCode.ENGINE_FAILED, "the engine ended")
    assert of.claimed == 3


def test_where_the_reference_is_at_chance_the_other_recipes_are_not_run(service: Callable[..., Service]) -> None:
    of = service(outcome="at_chance")
    error, _ = swept(of, steps(17))
    assert isinstance(error, HemostatError)
    assert error.detail.startswith("example cannot be used for predictions: the unmodified model answers at chance")
    assert of.claimed == 1


def test_without_service_it_ends(
    service: Callable[..., Service], shared: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However patient it is: here for a second."""
    monkeypatch.setattr("app.cli.client._PATIENCE_S", 1.0)
    of = service(ends={1: "away"})
    error, _ = swept(of, steps(16))
    shared.start()  # for the other tests
    assert isinstance(error, HemostatError)
    assert error.code is ErrorCode.UNAVAILABLE
    assert of.claimed == 2
