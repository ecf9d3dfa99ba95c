"""The job record against a real server."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from redis.asyncio import Redis

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.event import Event
from app.contracts.job import JobStatus, Progress, job_error
from app.contracts.requests.compare import CompareRequest
from app.jobs import keys
from app.jobs.connection import connect, redis_url
from app.jobs.ids import new_job_id
from app.jobs.store import MESSAGE_PAGE, MESSAGE_PAGES, Filters, Idempotency, JobStore, Orders
from app.settings import Settings
from tests.integration.app.conftest import compare
from tests.integration.app.jobs.lossy import LossyProxy
from tests.integration.conftest import RedisServer

REPORT = {
    "report": "attempt-1/report.json",
    "severity": "mild",
    "classes": ["none", "mild"],
    "answer": "Mild up to sparsity 0.4",
    "artifacts": ["tokens.npz"],
}
ERROR = job_error(ErrorCode.ENGINE_FAILED, "It broke.", "Mend it.")


def request(**changes: object) -> CompareRequest:
    return CompareRequest.model_validate(compare(**changes))


async def created(store: JobStore, **changes: object) -> str:
    job_id = new_job_id()
    assert (await store.create(job_id, request(**changes))).kind == "created"
    return job_id


async def status(store: JobStore, job_id: str) -> JobStatus:
    record = await store.get(job_id)
    assert record is not None
    return record.job.status


async def history(store: JobStore, job_id: str) -> list[str]:
    events: list[Event] = [TypeAdapter(Event).validate_json(event.data) for event in await store.events(job_id, 0)]
    return [f"{e.type} {getattr(e, 'status', '')}".strip() for e in events]


async def test_a_job_from_submission_to_result(store: JobStore, client: Redis) -> None:
    job_id = await created(store, metadata={"commit": "4f2c"})
    claim = await store.claim(job_id, "w1")
    assert claim is not None
    assert claim.request == request(metadata={"commit": "4f2c"})
    assert await store.progress(job_id, claim.attempt, Progress(phase="candidate", done=3, total=9))
    assert await store.log(job_id, claim.attempt, "going on")
    assert await store.orders(job_id, claim.attempt) is Orders.GO_ON
    assert await store.finish(job_id, claim.attempt, **REPORT)
    record = await store.get(job_id)
    assert record is not None
    assert record.job.status is JobStatus.SUCCEEDED
    assert (record.job.severity, record.job.classes) == ("mild", ("none", "mild"))
    assert record.job.answer == "Mild up to sparsity 0.4"
    assert record.job.artifacts == ("tokens.npz",)
    assert record.report == "attempt-1/report.json"
    assert record.job.progress == Progress(phase="candidate", done=3, total=9)
    assert record.job.metadata == {"commit": "4f2c"}
    assert record.job.finished_at is not None
    assert record.job.created_at <= (record.job.started_at or 0) <= record.job.finished_at
    assert await history(store, job_id) == [
        "state queued",
        "state running",
        "progress",
        "log",
        "state succeeded",
        "end succeeded",
    ]
    assert [event.number for event in await store.events(job_id, 0)] == [1, 2, 3, 4, 5, 6]


async def test_the_text_of_a_request_goes_with_the_end_of_its_job(store: JobStore, client: Redis) -> None:
    job_id = await created(store)
    assert "quick brown fox" in (await client.get(keys.request(job_id)) or "")
    claim = await store.claim(job_id, "w1")
    assert claim is not None
    await store.fail(job_id, claim.attempt, ERROR)
    assert await client.get(keys.request(job_id)) is None
    assert int(await client.get(keys.BYTES) or 0) == 0
    for name in await client.keys("*"):
        kind = await client.type(name)
        dump = await client.hgetall(name) if kind == "hash" else await client.dump(name) if kind != "stream" else ""
        assert "quick brown" not in str(dump), name


async def test_a_later_claim_fences_the_earlier_one(store: JobStore) -> None:
    job_id = await created(store)
    first = await store.claim(job_id, "w1")
    second = await store.claim(job_id, "w2")
    assert first is not None
    assert second is not None
    assert (first.attempt, second.attempt) == (1, 2)
    assert not await store.progress(job_id, 1, Progress(phase="late"))
    assert not await store.log(job_id, 1, "late")
    assert not await store.finish(job_id, 1, **REPORT)
    assert not await store.fail(job_id, 1, ERROR)
    assert not await store.cancelled(job_id, 1)
    assert not await store.release(job_id, 1)
    assert await store.orders(job_id, 1) is Orders.STOP
    assert await status(store, job_id) is JobStatus.RUNNING
    assert await store.finish(job_id, 2, report="attempt-2/report.json", severity="none")
    assert await history(store, job_id) == [
        "state queued",
        "state running",
        "state running",
        "state succeeded",
        "end succeeded",
    ]


async def test_of_many_attempts_at_once_exactly_one_result_is_recorded(store: JobStore, settings_of: Settings) -> None:
    store = JobStore(store.client, settings_of.model_copy(update={"max_attempts": 10}))
    job_id = await created(store)
    claims = await asyncio.gather(*(store.claim(job_id, f"w{i}") for i in range(8)))
    attempts = sorted(claim.attempt for claim in claims if claim is not None)
    assert attempts == list(range(1, 9))
    done = await asyncio.gather(
        *(store.finish(job_id, n, report=f"attempt-{n}/report.json", severity="none") for n in attempts)
    )
    assert done == [False] * 7 + [True]
    record = await store.get(job_id)
    assert record is not None
    assert record.report == "attempt-8/report.json"


@pytest.fixture
def settings_of(redis_server: RedisServer) -> Settings:
    return redis_server.settings


async def test_a_job_that_loses_its_workers_fails_instead_of_looping(store: JobStore) -> None:
    job_id = await created(store)
    for attempt in range(1, store.settings.max_attempts + 1):
        claim = await store.claim(job_id, f"w{attempt}")
        assert claim is not None
        await store.progress(job_id, claim.attempt, Progress(phase="candidate", done=attempt, total=9))
    assert await store.claim(job_id, "w9") is None
    record = await store.get(job_id)
    assert record is not None
    assert record.job.status is JobStatus.FAILED
    assert record.job.error is not None
    assert record.job.error.code is ErrorCode.WORKER_LOST
    assert "candidate at 3 of 9" in record.job.error.detail
    assert await store.claim(job_id, "w10") is None


async def test_a_claim_that_is_tried_again_with_its_token_is_the_same_claim(store: JobStore) -> None:
    job_id = await created(store)
    claims = [await store.claim(job_id, "w1", token="t1") for _ in range(5)]
    assert [claim.attempt for claim in claims if claim is not None] == [1] * 5
    other = await store.claim(job_id, "w2", token="t2")
    assert other is not None
    assert other.attempt == 2


async def test_a_released_attempt_does_not_count(store: JobStore) -> None:
    job_id = await created(store)
    for attempt in range(1, 3 * store.settings.max_attempts):
        claim = await store.claim(job_id, "w1")
        assert claim is not None
        assert claim.attempt == attempt
        assert await store.release(job_id, attempt)
        assert await status(store, job_id) is JobStatus.QUEUED
        assert not await store.finish(job_id, attempt, **REPORT), "a released attempt has no job any more"
    record = await store.get(job_id)
    assert record is not None
    assert (record.tries, record.worker) == (0, None)


async def test_cancelling_a_queued_job_ends_it(store: JobStore) -> None:
    job_id = await created(store)
    assert await store.cancel(job_id) is JobStatus.CANCELLED
    assert await store.claim(job_id, "w1") is None
    assert await history(store, job_id) == ["state queued", "state cancelled", "end cancelled"]


@pytest.mark.parametrize("end", ["finish", "fail", "cancelled", "release", "claim"])
async def test_a_job_that_is_being_cancelled_can_only_become_cancelled(store: JobStore, end: str) -> None:
    job_id = await created(store)
    claim = await store.claim(job_id, "w1")
    assert claim is not None
    assert await store.cancel(job_id) is JobStatus.CANCELLING
    assert await store.cancel_requested(job_id)
    assert await store.orders(job_id, 1) is Orders.CANCEL
    assert await store.progress(job_id, 1, Progress(phase="stopping"))
    if end == "finish":
        assert not await store.finish(job_id, 1, **REPORT)
    elif end == "fail":
        assert not await store.fail(job_id, 1, ERROR)
    elif end == "cancelled":
        assert await store.cancelled(job_id, 1)
    elif end == "release":
        assert await store.release(job_id, 1)
    else:
        assert await store.claim(job_id, "w2") is None
    record = await store.get(job_id)
    assert record is not None
    assert (record.job.status, record.job.error, record.report) == (JobStatus.CANCELLED, None, None)
    assert (await history(store, job_id))[-2:] == ["state cancelled", "end cancelled"]
    assert await store.cancel(job_id) is JobStatus.CANCELLED


async def test_names_that_are_no_result_are_refused(store: JobStore) -> None:
    job_id = await created(store)
    await store.claim(job_id, "w1")
    for report in ("/etc/passwd", "../x", "attempt-1/../../x", "attempt-1", "attempt-x/report.json"):
        with pytest.raises(ValueError, match="not a report"):
            await store.finish(job_id, 1, report=report, severity="none")
    for artifact in ("../x", "a/b", ".hidden", "", "a\0b", "x" * 129):
        with pytest.raises(ValueError, match="not an artifact"):
            await store.finish(job_id, 1, report="attempt-1/report.json", severity="none", artifacts=[artifact])


async def test_a_stored_request_of_another_version_fails_its_job(store: JobStore, client: Redis) -> None:
    job_id = await created(store)
    await client.set(keys.request(job_id), '{"kind": "compare", "reference": {"model": "m"}, "new_field": 1}')
    assert await store.claim(job_id, "w1") is None
    record = await store.get(job_id)
    assert record is not None
    assert record.job.error is not None
    assert record.job.error.code is ErrorCode.INVALID_REQUEST


async def test_a_missing_job_is_none_everywhere(store: JobStore) -> None:
    job_id = new_job_id()
    assert await store.get(job_id) is None
    assert await store.claim(job_id, "w1") is None
    assert await store.cancel(job_id) is None
    assert await store.delete(job_id) == "missing"
    assert not await store.finish(job_id, 1, **REPORT)
    assert await store.orders(job_id, 1) is Orders.STOP
    assert await store.events(job_id, 0) == []
    assert await store.oldest_event(job_id) is None


async def test_events_are_bounded_and_their_numbers_show_what_is_missing(store: JobStore) -> None:
    job_id = await created(store)
    await store.claim(job_id, "w1")
    for _ in range(26):
        step = Progress(phase="candidate", done=1, total=2600)
        await asyncio.gather(*(store.progress(job_id, 1, step) for _ in range(100)))
    await store.finish(job_id, 1, **REPORT)
    oldest = await store.oldest_event(job_id)
    assert oldest is not None
    assert oldest > 400
    record = await store.get(job_id)
    assert record is not None
    assert record.events == 2604
    events = await store.events(job_id, 0, count=10_000)
    assert [event.number for event in events] == list(range(oldest, 2605))
    assert len(events) < 2300
    assert json.loads(events[-1].data)["type"] == "end"


@pytest.mark.parametrize(
    ("since", "found", "most"),
    [
        (0, "the last line", MESSAGE_PAGE),
        (MESSAGE_PAGE - 1, "the last line", MESSAGE_PAGE),
        (MESSAGE_PAGE, "the last line", 2 * MESSAGE_PAGE),
        (MESSAGE_PAGE * MESSAGE_PAGES - 1, "the last line", MESSAGE_PAGE * MESSAGE_PAGES),
        (MESSAGE_PAGE * MESSAGE_PAGES, None, MESSAGE_PAGE * MESSAGE_PAGES),
    ],
)
async def test_the_latest_line_is_found_without_reading_all_events(
    store: JobStore, monkeypatch: pytest.MonkeyPatch, since: int, found: str | None, most: int
) -> None:
    job_id = await created(store)
    await store.claim(job_id, "w1")
    step = Progress(phase="candidate", done=1, total=2600)
    for _ in range(60):
        await store.progress(job_id, 1, step)
    for line in ("the first line", "the last line"):
        await store.log(job_id, 1, line)
    for first in range(0, since, MESSAGE_PAGE):  # not all at one time, which a busy machine may take too long for
        await asyncio.gather(*(store.progress(job_id, 1, step) for _ in range(min(MESSAGE_PAGE, since - first))))
    read: list[int] = []
    xrevrange = store.client.xrevrange

    async def counted(*arguments: Any, **options: Any) -> Any:
        entries = await xrevrange(*arguments, **options)
        read.append(len(entries))
        return entries

    monkeypatch.setattr(store.client, "xrevrange", counted)
    assert await store.latest_message(job_id) == found
    assert sum(read) == most


async def test_a_job_without_a_line_has_no_latest_one(store: JobStore) -> None:
    job_id = await created(store)
    assert await store.latest_message(job_id) is None
    assert await store.latest_message(new_job_id()) is None


async def test_a_blocking_read_wakes_up_at_the_next_event(store: JobStore, settings_of: Settings) -> None:
    job_id = await created(store)
    # It waits for longer than a connection of the service may, and than any pause of this process.
    async with Redis.from_url(redis_url(settings_of), decode_responses=True, socket_timeout=700) as patient:
        reading = asyncio.create_task(JobStore(patient, settings_of).events(job_id, 1, block_s=600))
        await asyncio.sleep(0.1)
        assert not reading.done()
        await store.claim(job_id, "w1")
        assert [event.number for event in await asyncio.wait_for(reading, 60)] == [2]
    assert await store.events(job_id, 2, block_s=0.05) == []


async def test_a_read_that_is_given_up_leaves_the_client_usable(store: JobStore) -> None:
    job_id = await created(store)
    for _ in range(20):
        reading = asyncio.create_task(store.events(job_id, 1, block_s=2))
        await asyncio.sleep(0.005)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        record = await store.get(job_id)
        assert record is not None
        assert record.job.id == job_id


# --- lists


async def test_pages_go_through_all_jobs_newest_first_and_back(store: JobStore) -> None:
    ids = [await created(store) for _ in range(7)]
    newest = ids[::-1]

    async def page(**options: str) -> tuple[list[str], bool]:
        records, more = await store.page(limit=3, **options)
        return [record.job.id for record in records], more

    assert await page() == (newest[:3], True)
    assert await page(after=newest[2]) == (newest[3:6], True)
    assert await page(after=newest[5]) == (newest[6:], False)
    assert await page(after=newest[6]) == ([], False)
    assert await page(before=newest[6]) == (newest[3:6], True)
    assert await page(before=newest[3]) == (newest[:3], False)
    assert await page(before=newest[0]) == ([], False)


async def test_a_cursor_outlives_its_job_and_new_jobs_do_not_shift_pages(store: JobStore) -> None:
    ids = [await created(store) for _ in range(4)]
    await store.cancel(ids[2])
    assert await store.delete(ids[2]) == "deleted"
    await created(store)
    records, _ = await store.page(after=ids[2])
    assert [record.job.id for record in records] == [ids[1], ids[0]]


async def test_filters(store: JobStore) -> None:
    plain = await created(store)
    tagged = await created(store, metadata={"commit": "a", "branch": "x"})
    other = await created(store, candidate={"model": "other"}, metadata={"commit": "a"})
    running = await created(store)
    await store.claim(running, "w1")

    async def found(**wanted: object) -> list[str]:
        records, _ = await store.page(filters=Filters(**wanted))  # type: ignore[arg-type]
        return [record.job.id for record in records]

    assert await found() == [running, other, tagged, plain]
    assert await found(status=JobStatus.RUNNING) == [running]
    assert await found(status=JobStatus.QUEUED) == [other, tagged, plain]
    assert await found(candidate="other") == [other]
    assert await found(metadata=(("commit", "a"),)) == [other, tagged]
    assert await found(metadata=(("commit", "a"), ("branch", "x"))) == [tagged]
    assert await found(kind="sweep") == []
    assert await found(kind="compare", status=JobStatus.QUEUED, candidate="tiny") == [tagged, plain]


async def test_records_of_another_version_are_left_out_of_pages_and_told_once(
    store: JobStore, client: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    ids = [await created(store) for _ in range(10)]
    foreign = {"reference": '{"models": ["a"]}', "status": "paused", "metadata": "{", "created_at": "soon", "tries": ""}
    for job_id, (field, value) in zip(ids[2:7], foreign.items(), strict=True):
        await client.hset(keys.job(job_id), field, value)
    await client.hdel(keys.job(ids[7]), "candidate")
    newest = [ids[9], ids[8], ids[1], ids[0]]

    async def page(**options: object) -> tuple[list[str], bool]:
        records, more = await store.page(limit=2, **options)  # type: ignore[arg-type]
        return [record.job.id for record in records], more

    assert await page() == (newest[:2], True)
    assert await page(after=newest[1]) == (newest[2:], False)
    assert await page(before=newest[2]) == (newest[:2], False)
    assert await page(after=newest[1], filters=Filters(kind="compare")) == (newest[2:], False)
    assert (await store.page(filters=Filters(metadata=(("a", "b"),))))[0] == []
    for job_id in ids[2:8]:
        assert caplog.text.count(job_id) == 1
        with pytest.raises(HemostatError, match=f"record of job {job_id} does not fit") as caught:
            await store.get(job_id)
        assert caught.value.code is ErrorCode.JOB_UNREADABLE


async def test_a_filter_finds_what_lies_far_back(store: JobStore) -> None:
    wanted = await created(store, metadata={"needle": "yes"})
    for _ in range(600):
        await created(store)
    records, more = await store.page(limit=1, filters=Filters(metadata=(("needle", "yes"),)))
    assert [record.job.id for record in records] == [wanted]
    assert not more


async def test_deleting_takes_everything_but_never_an_active_job(store: JobStore, client: Redis) -> None:
    hold = Idempotency.of("ci", "key", "f")
    job_id = new_job_id()
    await store.create(job_id, request(), hold)
    assert await store.delete(job_id) == "active"
    await store.claim(job_id, "w1")
    assert await store.delete(job_id) == "active"
    await store.finish(job_id, 1, **REPORT)
    assert await store.delete(job_id) == "deleted"
    left = {name for name in await client.keys("*") if name not in (keys.BYTES, keys.FINISHED)}
    assert left == set()


async def test_statistics_count_by_status_and_remember_the_ended(store: JobStore) -> None:
    first = await created(store)
    second = await created(store)
    await created(store)
    await store.claim(first, "w1")
    await store.claim(second, "w1")
    await store.fail(second, 1, ERROR)
    await asyncio.sleep(0.05)
    statistics = await store.statistics()
    assert statistics.by_status == {
        JobStatus.QUEUED: 1,
        JobStatus.RUNNING: 1,
        JobStatus.CANCELLING: 0,
        JobStatus.SUCCEEDED: 0,
        JobStatus.FAILED: 1,
        JobStatus.CANCELLED: 0,
    }
    assert 0.05 <= statistics.oldest_queued_s < 60
    assert statistics.finished == {("compare", JobStatus.FAILED): 1}
    await store.delete(second)
    assert (await store.statistics()).finished == {("compare", JobStatus.FAILED): 1}


# --- bounds and idempotency


async def test_the_queue_is_bounded_by_jobs_and_by_the_bytes_of_their_text(
    store: JobStore, settings_of: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = JobStore(store.client, settings_of.model_copy(update={"max_queued_jobs": 2}))
    first = await created(small)
    await created(small)
    hold = Idempotency.of("", "k", "f")
    assert (await small.reserve(hold)).kind == "reserved"
    assert (await small.create(new_job_id(), request(), hold)).kind == "queue_full"
    assert (await small.reserve(Idempotency.of("", "k", "f"))).kind == "reserved", "a refusal holds no key"
    await small.cancel(first)
    assert (await small.create(new_job_id(), request())).kind == "created"
    size = len(request().model_dump_json(exclude={"dry_run"}).encode())
    monkeypatch.setattr("app.jobs.store.MAX_REQUEST_BYTES", 3 * size)
    kinds = [(await store.create(new_job_id(), request())).kind for _ in range(2)]
    assert kinds == ["created", "queue_full"]


async def test_an_idempotency_key_stands_for_one_body_of_one_owner(store: JobStore) -> None:
    first = Idempotency.of("ci", "key", "body-1")
    assert (await store.reserve(first)).kind == "reserved"
    assert (await store.reserve(Idempotency.of("ci", "key", "body-1"))).kind == "in_progress"
    assert (await store.reserve(Idempotency.of("ci", "key", "body-2"))).kind == "conflict"
    assert (await store.reserve(Idempotency.of("ops", "key", "body-2"))).kind == "reserved"
    job_id = new_job_id()
    assert (await store.create(job_id, request(), first)).kind == "created"
    again = await store.reserve(Idempotency.of("ci", "key", "body-1"))
    assert (again.kind, again.job_id) == ("replayed", job_id)
    late = await store.create(new_job_id(), request(), Idempotency.of("ci", "key", "body-1"))
    assert (late.kind, late.job_id) == ("replayed", job_id)
    assert (await store.reserve(Idempotency.of("ci", "key", "body-2"))).kind == "conflict"


async def test_a_reservation_can_be_given_back_but_only_by_its_holder(store: JobStore) -> None:
    hold = Idempotency.of("", "key", "f")
    await store.reserve(hold)
    await store.unreserve(Idempotency.of("", "key", "f"))
    assert (await store.reserve(Idempotency.of("", "key", "f"))).kind == "in_progress"
    await store.unreserve(hold)
    assert (await store.reserve(Idempotency.of("", "key", "f"))).kind == "reserved"


async def test_the_record_never_holds_the_idempotency_key_itself(store: JobStore, client: Redis) -> None:
    await store.create(new_job_id(), request(), Idempotency.of("ci", "my-secret-key", "f"))
    everything = list(await client.keys("*"))
    everything += [str(await client.hgetall(name)) for name in everything if await client.type(name) == "hash"]
    assert "my-secret-key" not in "".join(everything)


# --- a reply that is lost


@pytest.mark.parametrize("script", ["create", "claim", "append", "end", "release", "cancel", "delete", "reserve"])
async def test_a_command_that_is_sent_again_after_a_lost_reply_has_its_effect_once(
    store: JobStore, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory, script: str
) -> None:
    path = Path("/tmp") / f"hemostat-test-{new_job_id()[-8:]}.sock"
    async with LossyProxy(redis_server.socket, path) as proxy:
        client = connect(redis_server.settings.model_copy(update={"redis_url": f"unix://{path}"}))
        lossy = JobStore(client, redis_server.settings)
        marker = lossy._scripts[script].sha.encode()
        await client.script_load(lossy._scripts[script].script)
        try:
            await _run_once(script, store, lossy, lambda: proxy.lose(marker))
        finally:
            await client.aclose()
        assert proxy.lost == 1
    path.unlink(missing_ok=True)


async def _run_once(script: str, store: JobStore, lossy: JobStore, lose: "object") -> None:
    assert callable(lose)
    job_id = new_job_id()
    hold = Idempotency.of("", "k", "f")
    if script == "reserve":
        lose()
        assert (await lossy.reserve(hold)).kind == "reserved"
        return
    if script == "create":
        lose()
        outcome = await lossy.create(job_id, request(), hold)
        assert outcome.kind == "created"
        assert outcome.created_at > 1e9
        assert await history(store, job_id) == ["state queued"]
        assert (await store.statistics()).by_status[JobStatus.QUEUED] == 1
        return
    await store.create(job_id, request())
    if script == "claim":
        lose()
        claim = await lossy.claim(job_id, "w1")
        assert claim is not None
        assert claim.attempt == 1
        record = await store.get(job_id)
        assert record is not None
        assert record.tries == 1
        assert await history(store, job_id) == ["state queued", "state running"]
        return
    if script == "cancel":
        lose()
        assert await lossy.cancel(job_id) is JobStatus.CANCELLED
        assert await history(store, job_id) == ["state queued", "state cancelled", "end cancelled"]
        return
    await store.claim(job_id, "w1")
    if script == "append":
        lose()
        assert await lossy.progress(job_id, 1, Progress(phase="candidate"))
    elif script == "end":
        lose()
        assert await lossy.finish(job_id, 1, **REPORT)
        assert (await store.statistics()).finished == {("compare", JobStatus.SUCCEEDED): 1}
        assert (await history(store, job_id)).count("end succeeded") == 1
    elif script == "release":
        lose()
        assert await lossy.release(job_id, 1)
        record = await store.get(job_id)
        assert record is not None
        assert (record.tries, record.job.status) == (0, JobStatus.QUEUED)
    elif script == "delete":
        await store.finish(job_id, 1, **REPORT)
        lose()
        assert await lossy.delete(job_id) in {"deleted", "missing"}
        assert await store.get(job_id) is None
