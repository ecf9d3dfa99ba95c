"""The job record against a real server."""

import asyncio
import errno
import hashlib
import stat
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from redis.asyncio import Redis

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.event import Event
from app.contracts.job import TERMINAL, JobStatus, Progress, job_error
from app.jobs import keys
from app.jobs.connection import connect
from app.jobs.ids import new_job_id
from app.jobs.store import Idempotency, JobStore, Orders, Outcome
from app.settings import Settings
from tests.integration.app.conftest import compare
from tests.integration.app.jobs.lossy import LossyProxy
from tests.integration.app.jobs.stored import REPORT, claimed, created, got, request, status
from tests.integration.conftest import RedisServer

ERROR = job_error(ErrorCode.ENGINE_FAILED, "It broke.", "Mend it.")


async def history(store: JobStore, job_id: str) -> list[str]:
    events: list[Event] = [TypeAdapter(Event).validate_json(event.data) for event in await store.events(job_id, 0)]
    return [f"{e.type} {getattr(e, 'status', '')}".strip() for e in events]


async def test_a_job_from_submission_to_result(store: JobStore, client: Redis) -> None:
    job_id = await created(store, metadata={"commit": "4f2c"})
    claim = await claimed(store, job_id)
    assert claim.request == request(metadata={"commit": "4f2c"})
    assert await store.progress(job_id, claim.attempt, Progress(phase="candidate", done=3, total=9))
    assert await store.log(job_id, claim.attempt, "going on")
    assert await store.orders(job_id, claim.attempt) is Orders.GO_ON
    assert await store.finish(job_id, claim.attempt, **REPORT)
    record = await got(store, job_id)
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


def holders(folder: Path, text: str) -> list[str]:
    """Files below the folder that hold the text."""
    found = (path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes())
    return sorted(str(path.relative_to(folder)) for path in found)


async def end_by(store: JobStore, job_id: str, end: str) -> None:
    if end == "cancel":
        await store.cancel(job_id)
        return
    claim = await claimed(store, job_id)
    if end == "fail":
        await store.fail(job_id, claim.attempt, ERROR)
    elif end == "finish":
        await store.finish(job_id, claim.attempt, **REPORT)
    else:
        await store.cancel(job_id)
        await (store.release(job_id, claim.attempt) if end == "release" else store.claim(job_id, "w2"))


@pytest.mark.parametrize("end", ["cancel", "fail", "finish", "release", "claim"])
async def test_the_text_of_a_request_is_one_file_that_goes_with_the_end_of_its_job(store: JobStore, end: str) -> None:
    recipe = [{"type": "quantize.awq", "bits": 4, "calibration": compare()["text"]}]
    job_id = await created(store, candidate={"model": "tiny", "recipe": recipe})
    home = store.settings.home
    assert holders(home, "quick brown") == [f"requests/{job_id}.json"]
    (file,) = (home / "requests").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    await end_by(store, job_id, end)
    assert holders(home, "quick brown") == []
    assert (await store.get(job_id)).job.status in TERMINAL  # type: ignore[union-attr]


@pytest.mark.parametrize("what", ["gone", "changed", "not to be read", "of another version"])
async def test_a_job_whose_request_is_not_what_was_accepted_fails(store: JobStore, client: Redis, what: str) -> None:
    job_id = await created(store)
    file = store.settings.home / "requests" / f"{job_id}.json"
    text = file.read_bytes()
    if what == "gone":
        file.unlink()
    elif what == "changed":
        file.write_bytes(text.replace(b"quick", b"quack"))
    elif what == "not to be read":
        file.unlink()
        file.mkdir()
    else:
        other = b'{"kind": "compare", "reference": {"model": "m"}, "new_field": 1}'
        file.write_bytes(other)
        await client.hset(keys.job(job_id), "request", hashlib.sha256(other).hexdigest())
    assert await store.claim(job_id, "w1") is None
    record = await got(store, job_id)
    assert record.job.error is not None
    assert record.job.error.code is ErrorCode.REQUEST_LOST
    assert "quack" not in record.job.error.detail


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


@pytest.fixture
def settings_of(redis_server: RedisServer) -> Settings:
    return redis_server.settings


async def test_a_job_that_loses_its_workers_fails_instead_of_looping(store: JobStore) -> None:
    job_id = await created(store)
    for attempt in range(1, store.settings.max_attempts + 1):
        claim = await claimed(store, job_id, f"w{attempt}")
        await store.progress(job_id, claim.attempt, Progress(phase="candidate", done=attempt, total=9))
    assert await store.claim(job_id, "w9") is None
    record = await got(store, job_id)
    assert record.job.status is JobStatus.FAILED
    assert record.job.error is not None
    assert record.job.error.code is ErrorCode.WORKER_LOST
    assert "candidate at 3 of 9" in record.job.error.detail
    assert await store.claim(job_id, "w10") is None


async def test_a_released_attempt_does_not_count(store: JobStore) -> None:
    job_id = await created(store)
    for attempt in range(1, 3 * store.settings.max_attempts):
        claim = await claimed(store, job_id)
        assert claim.attempt == attempt
        assert await store.release(job_id, attempt)
        assert await status(store, job_id) is JobStatus.QUEUED
        assert not await store.finish(job_id, attempt, **REPORT), "a released attempt has no job any more"
    record = await got(store, job_id)
    assert (record.tries, record.worker) == (0, None)


@pytest.mark.parametrize("end", ["finish", "fail", "cancelled", "release", "claim"])
async def test_a_job_that_is_being_cancelled_can_only_become_cancelled(store: JobStore, end: str) -> None:
    job_id = await created(store)
    await claimed(store, job_id)
    assert await store.cancel(job_id) is JobStatus.CANCELLING
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
    record = await got(store, job_id)
    assert (record.job.status, record.job.error, record.report) == (JobStatus.CANCELLED, None, None)
    assert (await history(store, job_id))[-2:] == ["state cancelled", "end cancelled"]
    assert await store.cancel(job_id) is JobStatus.CANCELLED


async def test_deleting_takes_everything_but_never_an_active_job(store: JobStore, client: Redis) -> None:
    hold = Idempotency("ci", "key", "f")
    job_id = new_job_id()
    await store.create(job_id, request(), hold)
    assert await store.delete(job_id) == "active"
    await store.claim(job_id, "w1")
    assert await store.delete(job_id) == "active"
    await store.finish(job_id, 1, **REPORT)
    assert await store.delete(job_id) == "deleted"
    assert sorted(await client.keys("*")) == [keys.FINISHED, keys.LINED_UP]


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


async def test_the_queue_is_bounded_by_jobs_and_their_bytes(store: JobStore, settings_of: Settings) -> None:
    small = JobStore(store.client, settings_of.model_copy(update={"max_queued_jobs": 2}))
    first = await created(small)
    await created(small)
    hold = Idempotency("", "k", "f")
    assert (await small.create(new_job_id(), request(), hold)).kind == "queue_full"
    assert await small.standing(hold) is None, "a refusal holds no key"
    await small.cancel(first)
    assert (await small.create(new_job_id(), request())).kind == "created"
    size = len(request().model_dump_json(exclude={"dry_run"}).encode())
    assert len(list((settings_of.home / "requests").iterdir())) == 2, "what was refused leaves no file"
    narrow = JobStore(store.client, settings_of.model_copy(update={"request_budget_bytes": 3 * size}))
    assert (await narrow.create(new_job_id(), request())).kind == "created"
    with pytest.raises(HemostatError) as caught:
        await narrow.create(new_job_id(), request())
    assert caught.value.code is ErrorCode.QUEUE_FULL
    assert (await narrow.statistics()).by_status[JobStatus.QUEUED] == 3


async def test_one_owner_takes_half_of_the_bytes_at_most(store: JobStore, settings_of: Settings) -> None:
    size = len(request().model_dump_json(exclude={"dry_run"}).encode())
    narrow = JobStore(store.client, settings_of.model_copy(update={"request_budget_bytes": 4 * size}))
    for _ in range(2):
        assert (await narrow.create(new_job_id(), request(), owner="ann")).kind == "created"
    with pytest.raises(HemostatError) as caught:
        await narrow.create(new_job_id(), request(), owner="ann")
    assert caught.value.code is ErrorCode.QUEUE_FULL
    assert (await narrow.create(new_job_id(), request(), owner="bob")).kind == "created"


async def test_a_request_that_the_disk_has_no_room_for_is_refused_and_leaves_nothing(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(HemostatError) as caught:
        await store.create(new_job_id(), request())
    assert caught.value.code is ErrorCode.DISK_FULL
    assert list((store.settings.home / "requests").iterdir()) == []
    assert (await store.statistics()).by_status[JobStatus.QUEUED] == 0


async def test_an_idempotency_key_stands_for_one_body_of_one_owner(store: JobStore, client: Redis) -> None:
    first = Idempotency("ci", "key", "body-1")
    assert await store.standing(first) is None
    job_id = new_job_id()
    assert (await store.create(job_id, request(), first)).kind == "created"
    assert await client.ttl(first.name) == -1, "no clock ends it"
    assert await store.standing(first) == Outcome("replayed", job_id)
    assert await store.standing(Idempotency("ci", "key", "body-2")) == Outcome("conflict", job_id)
    assert await store.standing(Idempotency("ops", "key", "body-2")) is None
    assert await store.create(new_job_id(), request(), first) == Outcome("replayed", job_id)
    assert await store.create(new_job_id(), request(), Idempotency("ci", "key", "body-2")) == Outcome(
        "conflict", job_id
    )
    await store.cancel(job_id)
    await store.delete(job_id)
    assert await store.standing(first) is None


async def test_the_record_never_holds_the_idempotency_key_itself(store: JobStore, client: Redis) -> None:
    await store.create(new_job_id(), request(), Idempotency("ci", "my-secret-key", "f"))
    everything = list(await client.keys("*"))
    everything += [str(await client.hgetall(name)) for name in everything if await client.type(name) == "hash"]
    assert "my-secret-key" not in "".join(everything)


# --- a reply that is lost


@pytest.mark.parametrize(
    "script", ["create", "claim", "append", "end", "release", "cancel", "delete", "tick", "compact"]
)
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
    hold = Idempotency("", "k", "f")
    if script == "tick":
        await store.tick()
        lose()
        assert 0 <= await lossy.tick() < 60
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
        claim = await claimed(lossy, job_id)
        assert claim.attempt == 1
        record = await got(store, job_id)
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
        record = await got(store, job_id)
        assert (record.tries, record.job.status) == (0, JobStatus.QUEUED)
    elif script == "delete":
        await store.finish(job_id, 1, **REPORT)
        lose()
        assert await lossy.delete(job_id) in {"deleted", "missing"}
        assert await store.get(job_id) is None
    elif script == "compact":
        await store.finish(job_id, 1, **REPORT)
        before = await history(store, job_id)
        lose()
        await lossy.compact(job_id)
        assert await history(store, job_id) == before


async def test_a_job_whose_request_cannot_be_read_for_a_while_is_not_lost(store: JobStore) -> None:
    job_id = await created(store)
    file = store.settings.home / "requests" / f"{job_id}.json"
    kept = file.rename(file.with_suffix(".kept"))
    file.symlink_to(file)
    with pytest.raises(OSError, match="symbolic links"):
        await store.claim(job_id, "w1", token="one delivery")
    kept.replace(file)
    claim = await claimed(store, job_id, token="one delivery")
    assert claim.attempt == 1
