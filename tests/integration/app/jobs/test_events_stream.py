"""Event streams over a real connection, and what happens to them when processes go away."""

import asyncio
import json
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from redis import Redis as SyncRedis

from app.contracts.job import Progress
from app.jobs import keys
from app.jobs.store import JobStore
from tests.integration.app.conftest import Server, compare
from tests.integration.conftest import RedisServer
from tests.support.patient import connect_patiently

JOBS = "/v1/diagnosis/jobs"
REPORT = {"report": "attempt-1/report.json", "severity": "mild"}


@dataclass
class Seen:
    """An event as it came over the wire."""

    id: int
    name: str
    data: dict[str, Any]


def read(lines: Iterator[str]) -> Iterator[Seen | str]:
    """Events and comments of a stream, by the rules of server-sent events."""
    event: dict[str, str] = {}
    for line in lines:
        if line.startswith(":"):
            yield line
        elif line:
            name, _, value = line.partition(": ")
            event[name] = value
        elif "data" in event:
            yield Seen(int(event["id"]), event["event"], json.loads(event["data"]))
            event = {}


class Follower:
    """A client that follows a job in a thread."""

    def __init__(self, url: str, job_id: str, last: int | None = None) -> None:
        self.seen: list[Seen] = []
        self.comments: list[str] = []
        self.status = 0
        self.error: Exception | None = None
        headers = {} if last is None else {"last-event-id": str(last)}
        self._thread = threading.Thread(target=self._run, args=(f"{url}{JOBS}/{job_id}/events", headers))
        self._thread.start()

    def _run(self, url: str, headers: dict[str, str]) -> None:
        try:
            with httpx.stream("GET", url, headers=headers, timeout=60) as answer:
                self.status = answer.status_code
                for item in read(answer.iter_lines()):
                    if isinstance(item, Seen):
                        self.seen.append(item)
                    else:
                        self.comments.append(item)
        except httpx.HTTPError as error:
            self.error = error

    def wait_for(self, count: int, timeout: float = 90) -> None:
        deadline = time.monotonic() + timeout
        while len(self.seen) < count:
            assert time.monotonic() < deadline, self.seen
            time.sleep(0.01)

    def wait_for_signs_of_life(self, count: int = 1, timeout: float = 90) -> None:
        """Until so many more have come."""
        before = self.comments.count(": ping")
        deadline = time.monotonic() + timeout
        while self.comments.count(": ping") < before + count:
            assert time.monotonic() < deadline, self.comments
            time.sleep(0.01)

    def join(self, timeout: float = 90) -> list[Seen]:
        self._thread.join(timeout)
        assert not self._thread.is_alive()
        return self.seen

    @property
    def names(self) -> list[str]:
        return [event.name for event in self.seen]


def submit(server: Server, **headers: str) -> str:
    answer = httpx.post(f"{server.url}{JOBS}", json=compare(), headers=headers, timeout=60)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def work(redis_server: RedisServer, *steps: tuple[str, tuple[Any, ...], dict[str, Any]]) -> list[Any]:
    """Calls of the store, as a worker makes them."""

    async def run() -> list[Any]:
        client = connect_patiently(redis_server.settings)
        store = JobStore(client, redis_server.settings)
        try:
            return [await getattr(store, name)(*arguments, **options) for name, arguments, options in steps]
        finally:
            await client.aclose()

    return asyncio.run(run())


def claim(job_id: str) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    return ("claim", (job_id, "w1"), {})


def progress(job_id: str, done: int) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    return ("progress", (job_id, 1, Progress(phase="candidate", done=done, total=9)), {})


def finish(job_id: str) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    return ("finish", (job_id, 1), REPORT)


def test_a_stream_tells_the_whole_story_and_ends(server: Server, redis_server: RedisServer) -> None:
    server.start()
    job_id = submit(server)
    follower = Follower(server.url, job_id)
    follower.wait_for(1)
    work(redis_server, claim(job_id), progress(job_id, 1), ("log", (job_id, 1, "going\non"), {}))
    follower.wait_for(4)
    follower.wait_for_signs_of_life()  # a quiet stream is kept alive
    work(redis_server, finish(job_id))
    follower.join()
    assert follower.names == ["state", "state", "progress", "log", "state", "end"]
    assert [event.id for event in follower.seen] == [1, 2, 3, 4, 5, 6]
    assert follower.seen[2].data["progress"] == {"phase": "candidate", "done": 1, "total": 9}
    assert follower.seen[3].data["message"] == "going\non"
    assert follower.seen[-1].data["status"] == "succeeded"
    # Once more from the middle, from the end, and from nowhere.
    assert [event.id for event in Follower(server.url, job_id, 3).join()] == [4, 5, 6]
    after = Follower(server.url, job_id, 6)
    after.join()
    assert (after.status, after.seen) == (204, [])
    assert Follower(server.url, job_id, 5).join()[0].name == "end"


def test_what_is_no_longer_kept_is_a_gap(server: Server, redis_server: RedisServer) -> None:
    server.start()
    job_id = submit(server)
    work(redis_server, claim(job_id), *(progress(job_id, n) for n in range(6)), finish(job_id))
    with SyncRedis(unix_socket_path=str(redis_server.socket)) as redis:
        redis.xtrim(keys.events(job_id), minid="6-0", approximate=False)
    behind = Follower(server.url, job_id, 2)
    behind.join()
    assert behind.names == ["gap", "progress", "progress", "progress", "state", "end"]
    assert behind.seen[0].data["resume_from"] == "6"
    assert [event.id for event in behind.seen] == [5, 6, 7, 8, 9, 10]
    assert Follower(server.url, job_id, 5).join()[0].id == 6, "nothing is missing"
    from_a_lost_history = Follower(server.url, job_id, 4000)
    assert from_a_lost_history.join()[0].name == "gap"
    assert from_a_lost_history.names[-1] == "end"
    with SyncRedis(unix_socket_path=str(redis_server.socket)) as redis:
        redis.delete(keys.events(job_id))
    expired = Follower(server.url, job_id)
    assert [event.name for event in expired.join()] == ["end"]
    assert expired.seen[0].data["status"] == "succeeded"


def test_a_stream_goes_on_where_it_was_after_the_api_was_killed(server: Server, redis_server: RedisServer) -> None:
    server.start()
    job_id = submit(server)
    work(redis_server, claim(job_id), progress(job_id, 1))
    follower = Follower(server.url, job_id)
    follower.wait_for(3)
    server.end(signal.SIGKILL)
    follower.join()
    assert follower.names == ["state", "state", "progress"]
    work(redis_server, progress(job_id, 2), progress(job_id, 3))
    server.start()
    again = Follower(server.url, job_id, follower.seen[-1].id)
    again.wait_for(2)
    work(redis_server, finish(job_id))
    again.join()
    assert [event.id for event in follower.seen + again.seen] == [1, 2, 3, 4, 5, 6, 7]
    assert again.names[-1] == "end"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_open_streams_do_not_hold_up_the_end_of_the_process(server: Server, number: signal.Signals) -> None:
    server.start()
    job_id = submit(server)
    followers = [Follower(server.url, job_id) for _ in range(5)]
    for follower in followers:
        follower.wait_for(1)
    assert server.end(number) < server.settings.drain_s / 2
    for follower in followers:
        follower.join()
        assert follower.error is None, "the stream ended as a whole answer, so a client reconnects with its last id"
        assert follower.names == ["state"]


def test_a_stream_outlives_redis(server: Server, redis_server: RedisServer) -> None:
    server.start()
    job_id = submit(server)
    follower = Follower(server.url, job_id)
    follower.wait_for(1)
    redis_server.kill()
    follower.wait_for_signs_of_life(2)  # the connection is kept open meanwhile
    redis_server.start()
    work(redis_server, claim(job_id), finish(job_id))
    follower.join()
    assert follower.names == ["state", "state", "state", "end"]
    assert [event.id for event in follower.seen] == [1, 2, 3, 4]


def test_a_stream_of_a_deleted_job_ends(server: Server, redis_server: RedisServer) -> None:
    server.start()
    job_id = submit(server)
    follower = Follower(server.url, job_id)
    follower.wait_for(1)
    with SyncRedis(unix_socket_path=str(redis_server.socket)) as redis:
        redis.delete(keys.events(job_id), keys.job(job_id))
    follower.join()


def test_whoever_leaves_is_not_counted_any_more(server: Server) -> None:
    server.start()
    job_id = submit(server)
    for _ in range(3):
        with httpx.stream("GET", f"{server.url}{JOBS}/{job_id}/events", timeout=60) as answer:
            assert next(answer.iter_lines())
    deadline = time.monotonic() + 60
    while "hemostat_sse_connections 0.0" not in httpx.get(f"{server.url}/metrics", timeout=60).text:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert (
        httpx.get(f"{server.url}{JOBS}/{job_id}/events", headers={"last-event-id": "x"}, timeout=60).status_code == 422
    )
