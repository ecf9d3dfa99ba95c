"""Redis with little memory, under floods: what is there goes on and ends, and what is refused is told why."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import httpx
import pytest

from app.contracts.deployment import Deployment, DeploymentState, Replica
from app.contracts.errors import ErrorCode
from app.contracts.job import JobStatus
from app.jobs import files
from app.jobs.reconcile import sweep
from app.jobs.workers import WorkerInfo, announce
from app.memory import HIGH_WATER
from tests.integration.app.conftest import Api, compare
from tests.integration.app.deployments.asking import refused, sample, until
from tests.integration.app.deployments.conftest import request
from tests.integration.app.jobs.stored import claimed

JOBS = "/v1/diagnosis/jobs"
MEMORY = 64 * 1024**2
# The most that may come in between two looks at the memory, and what connections take.
MARGIN = 0.1


@pytest.fixture
async def small(api: Api) -> AsyncIterator[Api]:
    """A Redis of 64 MB, most of which others use."""
    await api.state.redis.config_set("maxmemory", MEMORY)
    await fill(api, 0.72)
    yield api
    await api.state.redis.config_set("maxmemory", 0)


async def fill(api: Api, share: float) -> None:
    """Others use so much of Redis."""
    number = 0
    while await ratio(api) < share:
        await api.state.redis.set(f"of somebody else: {share} {number}", b"x" * 250_000)
        number += 1


async def ratio(api: Api) -> float:
    told = await api.state.redis.info("memory")
    return float(told["used_memory"]) / MEMORY


@dataclass
class Life:
    """What must go on meanwhile: a replica's lease, a worker's heartbeat, a claim, a job's progress and its end."""

    api: Api
    deployment: Deployment
    rounds: int = 0
    highest: float = 0.0
    jobs: list[str] = field(default_factory=list)
    over: bool = False

    async def live(self) -> None:
        while not self.over:
            await self.api.state.deployments.renew(
                self.deployment.id, Replica(id="serve-0", state=DeploymentState.READY)
            )
            await announce(self.api.state.redis, WorkerInfo(id="w1"))
            if self.jobs:
                job_id = self.jobs[0]
                claim = await claimed(self.api.state.store, job_id)
                assert await self.api.state.store.log(job_id, claim.attempt, "goes on")
                assert await self.api.state.store.finish(
                    job_id, claim.attempt, report="attempt-1/report.json", severity="none"
                )
                self.jobs.pop(0)
            self.highest = max(self.highest, await ratio(self.api))
            self.rounds += 1
            await asyncio.sleep(0.05)

    async def ended(self) -> bool:
        """Whether the jobs that were there before have ended."""
        return self.jobs == []


@pytest.fixture
async def life(small: Api) -> AsyncIterator[Life]:
    before = [await small.submit() for _ in range(20)]
    made = Life(small, await small.state.deployments.create(request(calibration="off")), jobs=before)
    living = asyncio.create_task(made.live())
    yield made
    await until(made.ended)
    assert not living.done(), living.exception()
    made.over = True
    await living
    assert made.rounds > 5
    assert made.highest < HIGH_WATER + MARGIN
    (replica,) = (await small.state.deployments.get(made.deployment.id)).running
    assert replica.state is DeploymentState.READY


def check(answer: httpx.Response) -> str:
    """The id of an accepted job, or ''; a refusal must say what it is."""
    if answer.status_code == 202:
        return str(answer.json()["id"])
    assert answer.status_code == 503, answer.text
    told = answer.json()
    assert (told["code"], "memory" in told["detail"]) == ("unavailable", True), told
    assert "does not answer" not in told["detail"]
    assert int(answer.headers["retry-after"]) > 0
    return ""


async def flood(send: Callable[[], Awaitable[str]], *, most: int, enough: Callable[[Counter[bool]], bool]) -> list[str]:
    """Sends, eight at a time, until it is enough. The jobs that were accepted."""
    seen: Counter[bool] = Counter()
    accepted: list[str] = []

    async def client() -> None:
        while seen.total() < most and not enough(seen):
            job_id = await send()
            seen[bool(job_id)] += 1
            if job_id:
                accepted.append(job_id)

    await asyncio.gather(*(client() for _ in range(8)))
    assert enough(seen), seen
    return accepted


async def run_all(api: Api, job_ids: list[str]) -> None:
    for job_id in job_ids:
        claim = await claimed(api.state.store, job_id, "w2")
        assert await api.state.store.finish(job_id, claim.attempt, report="attempt-1/report.json", severity="none")


async def tidied(api: Api) -> None:
    settings = api.state.settings
    for _ in range(4):
        await sweep(api.state.store, api.state.docket, settings, lambda job_id: files.remove(settings, job_id))
        await asyncio.sleep(1.1)  # the memory is read once a second


async def test_small_bodies_fill_no_redis_and_whatever_was_accepted_ends(life: Life) -> None:
    api = life.api

    async def send() -> str:
        return check(await api.http.post(JOBS, json=compare(metadata={"note": "m" * 500})))

    accepted = await flood(send, most=3000, enough=lambda seen: seen[False] >= 20)
    full = await ratio(api)
    answer = await api.http.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    assert "memory" in answer.json()["checks"]["jobs"]["detail"]
    metrics = (await api.http.get("/metrics")).text
    (told,) = [line for line in metrics.splitlines() if line.startswith("hemostat_redis_memory_ratio ")]
    assert float(told.split()[1]) > HIGH_WATER
    error = await refused(api.state.deployments.push_sample(life.deployment.id, sample(1)))
    assert error.code is ErrorCode.UNAVAILABLE
    await until(life.ended)
    cancelled = (await api.http.post(f"{JOBS}/{accepted[-1]}/cancel")).json()
    assert cancelled["status"] == "cancelled"
    await run_all(api, accepted[:-1])
    await tidied(api)
    assert await ratio(api) < full
    assert (await api.state.store.statistics()).by_status[JobStatus.QUEUED] == 0
    await api.submit()
    assert (await api.http.get("/readyz")).json()["status"] == "ready"


async def test_large_bodies_are_no_load_of_redis(life: Life) -> None:
    api = life.api
    document = {"id": "d1", "text": "The quick brown fox. " * 50_000}

    async def send() -> str:
        return check(await api.http.post(JOBS, json=compare(text={"source": "inline", "documents": [document]})))

    before = await ratio(api)
    accepted = await flood(send, most=120, enough=lambda seen: seen[True] >= 100)
    assert len(accepted) * len(document["text"]) > MEMORY
    assert await ratio(api) < before + MARGIN
    await run_all(api, accepted)
    await until(life.ended)
    assert list(files.requests(api.state.settings)) == []


async def test_jobs_that_are_submitted_and_cancelled_leave_room_for_others(life: Life) -> None:
    api = life.api
    await fill(api, 0.78)
    kept = [await api.submit() for _ in range(3)]
    await run_all(api, kept)
    refusals = 0

    async def send() -> str:
        nonlocal refusals
        job_id = check(await api.http.post(JOBS, json=compare(metadata=dict.fromkeys("abc", "m" * 450))))
        refusals += not job_id
        if job_id:
            assert (await api.http.post(f"{JOBS}/{job_id}/cancel")).status_code == 200
        return job_id

    await flood(send, most=5000, enough=lambda _: refusals >= 10)
    await tidied(api)
    await api.submit()
    for job_id in kept:
        assert (await api.http.get(f"{JOBS}/{job_id}")).status_code == 200, "what has a result is kept"


async def test_beyond_the_high_water_mark_no_deployment_is_made_but_one_can_be_changed(small: Api) -> None:
    await small.state.deployments.create(request(name="before"))
    await fill(small, HIGH_WATER + 0.01)
    refused = await small.http.post("/v1/deployments", json=request(name="new").model_dump(mode="json"))
    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
    assert "memory" in refused.json()["detail"]
    assert int(refused.headers["retry-after"]) > 0
    assert [one.name for one in await small.state.deployments.list()] == ["before"]
    changed = await small.http.patch("/v1/deployments/before", json={"calibration": "off"})
    assert changed.status_code == 200
