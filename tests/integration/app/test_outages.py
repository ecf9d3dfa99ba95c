"""Redis goes away and comes back: what was accepted is there, what was not says so, and nothing is started anew."""

import asyncio
import contextlib
import http.client
import os
import signal
import threading
import time

import httpx
from docket import Worker

from app.contracts.job import JobStatus
from app.jobs import queue
from app.jobs.connection import connect
from app.jobs.ids import new_job_id
from app.jobs.store import JobStore
from app.kinds.compare.request import CompareRequest
from app.main import create_app
from app.settings import Settings
from tests.integration.app.conftest import Api, Server, compare
from tests.integration.app.jobs.stored import got
from tests.integration.conftest import RedisServer
from tests.support.worker import halt, wait_for

KEEP_ALIVE_S = 5.0  # after which uvicorn closes an idle connection
JOBS = "/v1/diagnosis/jobs"


def test_no_accepted_job_is_lost_when_redis_is_killed_under_load(server: Server, redis_server: RedisServer) -> None:
    server.start(HEMOSTAT_REQUESTS_PER_MINUTE="1000000", HEMOSTAT_MAX_QUEUED_JOBS="1000000")
    accepted: list[str] = []
    answers: list[tuple[float, int, int]] = []  # when it was asked, by whom, and the status
    stop = threading.Event()

    def client(number: int) -> None:
        with httpx.Client(base_url=server.url, timeout=90) as http:
            count = 0
            while not stop.is_set():
                count += 1
                asked = time.monotonic()
                answer = http.post(JOBS, json=compare(metadata={"client": str(number), "count": str(count)}))
                answers.append((asked, number, answer.status_code))
                if answer.status_code == 202:
                    accepted.append(answer.json()["id"])
                else:
                    assert answer.status_code == 503, answer.text
                    assert answer.json()["code"] == "unavailable"
                    assert int(answer.headers["retry-after"]) > 0
                    time.sleep(0.05)

    clients = [threading.Thread(target=client, args=(number,)) for number in range(3)]
    for thread in clients:
        thread.start()

    def all_have(status: int, after: float, count: int = 1) -> None:
        """Waits until each client was answered so, so many times, to what it asked after that moment."""

        def seen() -> bool:
            found = [number for asked, number, told in tuple(answers) if asked > after and told == status]
            return all(found.count(number) >= count for number in range(len(clients)))

        wait_for(seen, what=f"{status} for everybody")

    try:
        for _ in range(2):
            all_have(202, time.monotonic(), 5)
            redis_server.kill()
            all_have(503, time.monotonic())
            redis_server.start()
        all_have(202, time.monotonic())  # it recovers by itself
        back = time.monotonic()
        all_have(202, back, 10)
    finally:
        stop.set()
        for thread in clients:
            thread.join()
    assert [status for asked, _, status in answers if asked > back and status == 503] == [], "for good"
    listed: list[str] = []
    page = {"last_id": None, "has_more": True}
    while page["has_more"]:
        after = {"after": page["last_id"]} if page["last_id"] else {}
        page = httpx.get(f"{server.url}{JOBS}", params={"limit": 100, **after}, timeout=30).json()
        listed += [job["id"] for job in page["data"]]
    assert set(accepted) <= set(listed)
    assert len(accepted) == len(set(accepted))
    # And each of them reaches a worker exactly once, those whose queueing was cut short by the crash too.
    assert asyncio.run(_run_all(redis_server, set(listed))) == sorted(listed)


async def _run_all(redis_server: RedisServer, expected: set[str]) -> list[str]:
    client = connect(redis_server.settings)
    store = JobStore(client, redis_server.settings)
    ran: list[str] = []

    async def run_job(job_id: str) -> None:
        claim = await store.claim(job_id, "w1")
        if claim is not None:
            ran.append(job_id)
            await store.finish(job_id, claim.attempt, report="attempt-1/report.json", severity="none")

    async with queue.make_docket(redis_server.settings) as docket:
        docket.register(run_job)
        async with Worker(docket, concurrency=10) as worker:
            running = asyncio.create_task(worker.run_forever())
            deadline = time.monotonic() + 120
            while len(ran) < len(expected) and time.monotonic() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            await asyncio.sleep(1)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
    await client.aclose()
    return sorted(ran)


def test_the_api_starts_and_says_so_while_redis_is_away(server: Server, redis_server: RedisServer) -> None:
    redis_server.kill()
    server.start(HEMOSTAT_DRAIN_S="3600")
    assert httpx.get(f"{server.url}/livez", timeout=30).status_code == 200
    ready = httpx.get(f"{server.url}/readyz", timeout=30)
    assert ready.status_code == 503
    assert ready.headers["content-type"] == "application/problem+json"
    checks = ready.json()["checks"]
    assert {name: check["ok"] for name, check in checks.items()} == {"api": True, "redis": False, "models": True}
    assert "redis" in ready.json()["detail"]
    assert "hemostat_redis_up 0.0" in httpx.get(f"{server.url}/metrics", timeout=30).text
    for method, path in (("GET", JOBS), ("POST", JOBS), ("GET", f"{JOBS}/diag_01M89D9HJWGEE9A2EB6NKQX32W")):
        answer = httpx.request(method, f"{server.url}{path}", json=compare() if method == "POST" else None, timeout=30)
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert int(answer.headers["retry-after"]) > 0
    redis_server.start()
    assert httpx.post(f"{server.url}{JOBS}", json=compare(), timeout=30).status_code == 202
    assert httpx.get(f"{server.url}/readyz", timeout=30).status_code == 200
    assert server.end(signal.SIGTERM) == -signal.SIGTERM  # by itself, long before the drain's end


def test_the_process_goes_when_told_to_also_while_redis_is_away(server: Server, redis_server: RedisServer) -> None:
    server.start(HEMOSTAT_DRAIN_S="3600")
    redis_server.kill()
    assert httpx.get(f"{server.url}{JOBS}", timeout=30).status_code == 503
    assert server.end(signal.SIGTERM) == -signal.SIGTERM  # by itself, long before the drain's end


def test_a_server_that_hangs_is_a_503_and_not_a_hanging_request(server: Server, redis_server: RedisServer) -> None:
    server.start()
    assert httpx.get(f"{server.url}{JOBS}", timeout=30).status_code == 200
    assert redis_server.pid is not None
    halt(redis_server.pid)
    try:
        assert httpx.get(f"{server.url}/readyz", timeout=30).status_code == 503
        assert httpx.get(f"{server.url}/livez", timeout=30).status_code == 200
        answer = httpx.get(f"{server.url}{JOBS}", timeout=60)
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    finally:
        os.kill(redis_server.pid, signal.SIGCONT)
    assert httpx.get(f"{server.url}{JOBS}", timeout=30).status_code == 200


async def test_a_full_redis_takes_no_job_and_says_so(api: Api) -> None:
    kept = await api.submit()
    await api.state.redis.config_set("maxmemory", "1")
    try:
        answer = await api.http.post(JOBS, json=compare())
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert int(answer.headers["retry-after"]) > 0
        assert (await api.http.get(f"{JOBS}/{kept}")).status_code == 200
    finally:
        await api.state.redis.config_set("maxmemory", "0")
    assert [job["id"] for job in (await api.http.get(JOBS)).json()["data"]] == [kept]
    await api.submit()


async def test_a_job_whose_record_was_written_before_the_process_died_is_queued_at_the_next_start(
    settings: Settings, store: JobStore
) -> None:
    """The moment between the two writes: the record is there and docket never heard of it."""
    job_id = new_job_id()
    await store.create(job_id, CompareRequest.model_validate(compare()))
    async with queue.make_docket(settings) as docket:
        assert not (await queue.known(docket, [job_id]))[job_id]
        app = create_app(settings)
        async with app.router.lifespan_context(app):
            deadline = time.monotonic() + 60
            while not (await queue.known(docket, [job_id]))[job_id]:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)
    record = await got(store, job_id)
    assert record.job.status is JobStatus.QUEUED


def test_what_came_while_the_process_stood_still_is_answered(server: Server) -> None:
    server.start()
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        connection.request("GET", "/livez")
        assert connection.getresponse().read()
        halt(server.pid)
        try:
            connection.request("GET", "/livez")
            time.sleep(KEEP_ALIVE_S + 0.5)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        assert connection.getresponse().status == 200
