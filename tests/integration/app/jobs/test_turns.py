"""The order of turns against a real docket: what it says comes first is what a worker is given first."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from docket import Docket, Worker
from redis.asyncio import Redis

from app.jobs import queue
from app.jobs.ids import new_job_id
from app.jobs.reconcile import hand_over, sweep
from app.jobs.store import JobStore
from app.jobs.turns import ahead
from app.kinds.compare.request import CompareRequest
from app.settings import Settings
from tests.integration.app.conftest import Api, compare
from tests.integration.app.jobs.stored import claimed, jumped
from tests.integration.conftest import RedisServer
from workers.process.lease import Lease

REQUEST = CompareRequest.model_validate(compare())


@pytest.fixture
async def docket(redis_server: RedisServer) -> AsyncIterator[Docket]:
    async with queue.make_docket(redis_server.settings) as made:
        yield made


async def submit(store: JobStore, docket: Docket, owner: str = "") -> str:
    job_id = new_job_id()
    if (await store.create(job_id, REQUEST, owner=owner)).its_turn:
        await queue.submit(docket, job_id)
    return job_id


async def delivered(settings: Settings) -> list[str]:
    """All that a worker is given, in order."""
    given: list[str] = []

    async def run_job(job_id: str) -> None:
        given.append(job_id)

    async with queue.make_docket(settings) as docket:
        docket.register(run_job)
        async with Worker(docket, concurrency=1, redelivery_timeout=timedelta(minutes=2)) as made:
            await asyncio.wait_for(made.run_until_finished(), 90)
    return given


async def given_in_turn(store: JobStore, docket: Docket) -> list[str]:
    """What a worker is given that claims each job and hands the next ones over."""
    given: list[str] = []

    async def run_job(job_id: str) -> None:
        given.append(job_id)
        assert await store.claim(job_id, "w2")
        await hand_over(store, docket)

    async with queue.make_docket(store.settings) as other:
        other.register(run_job)
        async with Worker(other, concurrency=1) as made:
            await asyncio.wait_for(made.run_until_finished(), 90)
    return given


async def test_queued_jobs_come_in_the_order_in_which_they_were_submitted(store: JobStore, docket: Docket) -> None:
    ids = [await submit(store, docket) for _ in range(4)]
    assert [len(await ahead(store, job_id)) for job_id in ids] == [0, 1, 2, 3]
    assert await delivered(store.settings) == ids


async def test_owners_have_their_turns_in_a_circle_and_are_told_so(store: JobStore, docket: Docket) -> None:
    a1, a2, a3, a4 = [await submit(store, docket, "ann") for _ in range(4)]
    b1, b2 = [await submit(store, docket, "bob") for _ in range(2)]
    (c1,) = [await submit(store, docket, "cid")]
    expected = [a1, b1, c1, a2, b2, a3, a4]
    assert [len(await ahead(store, job_id)) for job_id in expected] == list(range(7))
    assert await given_in_turn(store, docket) == expected


async def test_an_owner_with_fewer_running_jobs_goes_first(store: JobStore, docket: Docket) -> None:
    """Three workers have jobs of ann's. While others wait that have none, docket gets no more of hers."""
    a = [await submit(store, docket, "ann") for _ in range(6)]
    for job_id in a[:3]:
        await store.claim(job_id, "w1")
    await queue.withdraw(docket, a[0])
    b1, b2 = [await submit(store, docket, "bob") for _ in range(2)]
    (c1,) = [await submit(store, docket, "cid")]
    await hand_over(store, docket)
    assert await queue.known(docket, [*a[3:], b1, b2, c1]) == dict.fromkeys([*a[3:], b2], False) | {b1: True, c1: True}
    waiting = [b1, c1, b2, *a[3:]]
    assert [len(await ahead(store, job_id)) for job_id in waiting] == [3 + n for n in range(6)]
    assert await given_in_turn(store, docket) == waiting


async def test_the_order_of_a_line_is_that_in_which_its_jobs_were_queued_whatever_the_clock_does(
    store: JobStore, docket: Docket, client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    back = jumped(store, -3600, monkeypatch)
    first, second, third = new_job_id(), new_job_id(), new_job_id()
    for job_id, clock in ((first, store), (second, back), (third, store)):
        await clock.create(job_id, REQUEST, owner="ann")
    assert list((await store.lines())["ann"]) == [first, second, third]
    claim = await claimed(store, first)
    await back.release(first, claim.attempt)
    assert list((await store.lines())["ann"]) == [second, third, first]


async def test_a_job_that_nobody_could_hand_over_is_handed_over_by_the_sweep(store: JobStore, docket: Docket) -> None:
    first, second, third = [await submit(store, docket, "ann") for _ in range(3)]
    await store.claim(first, "w1")  # and that worker is gone
    assert not any((await queue.known(docket, [second, third])).values())
    assert (await sweep(store, docket, store.settings, lambda _: None)).resubmitted == 1
    assert await queue.known(docket, [second, third]) == {second: True, third: False}


async def test_a_job_that_was_given_back_comes_behind_those_that_wait(store: JobStore, docket: Docket) -> None:
    """The oldest of all: by age it would be first."""
    fit, first, second = [await submit(store, docket) for _ in range(3)]
    claim = await claimed(store, fit)
    assert len(await ahead(store, second)) == 2, "as long as a worker holds it, it comes first"
    await store.release(fit, claim.attempt)
    await Lease(docket, "w1", None).give_back(fit)
    third = await submit(store, docket)
    assert [len(await ahead(store, job_id)) for job_id in (first, second, fit, third)] == [0, 1, 2, 3]
    assert await delivered(store.settings) == [first, second, fit, third]


async def test_it_is_told_over_http(api: Api) -> None:
    first, second = await api.submit(), await api.submit()
    answer = await api.http.get(f"/v1/diagnosis/jobs/{second}/queue")
    assert (answer.status_code, answer.json()["before"]) == (200, 1)
    assert answer.json()["first"] == {"id": first, "kind": "compare"}
    next_one = (await api.http.get(f"/v1/diagnosis/jobs/{first}/queue")).json()
    assert (next_one["status"], next_one["before"]) == ("queued", 0)
    assert (await api.http.get(f"/v1/diagnosis/jobs/{new_job_id()}/queue")).json()["code"] == "job_not_found"
