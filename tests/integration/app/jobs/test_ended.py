"""What is left of a job that has ended: little, for as long as the service serves, and whatever the clock does."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from docket import Docket
from redis.asyncio import Redis

from app.contracts.errors import ErrorCode
from app.contracts.job import JobStatus, Progress, job_error
from app.jobs import files, keys, queue, reconcile
from app.jobs.ids import new_job_id
from app.jobs.reconcile import Swept, sweep
from app.jobs.service import delete
from app.jobs.states import note_state
from app.jobs.store import Idempotency, JobStore
from app.locks import try_lock
from tests.integration.app.jobs.stored import REPORT, claimed, created, got, jumped, request, status
from tests.integration.conftest import RedisServer

DAY_S = 24 * 3600
MOST_BYTES = 8 * 1024
STEP = {"type": "quantize.rtn", "bits": 4, "layers": [0] * 9_999}


@pytest.fixture
async def docket(redis_server: RedisServer) -> AsyncIterator[Docket]:
    async with queue.make_docket(redis_server.settings) as made:
        yield made


async def swept(store: JobStore, docket: Docket, **options: Any) -> Swept:
    """One pass of the sweep, which removes files as the service does."""
    return await sweep(store, docket, store.settings, lambda job_id: files.remove(store.settings, job_id), **options)


def left_by_attempts(store: JobStore, job_id: str) -> list[str]:
    folder = store.settings.job_dir(job_id)
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def leave(store: JobStore, job_id: str) -> None:
    """What the attempts of a job have on disk when its worker dies."""
    for name in ("attempt-1/report.json", "attempt-2/report.json", "partial/rows"):
        path = store.settings.job_dir(job_id) / name
        path.parent.mkdir(parents=True)
        path.write_text("something")


# --- how much


async def bytes_of(client: Redis, job_id: str) -> int:
    """What Redis takes for a job's own keys, and for the idempotency key that leads to it."""
    names = [name for name in await client.keys("hemostat-jobs:*") if job_id in name or "idempotency" in name]
    return sum([await client.memory_usage(name, samples=0) or 0 for name in names])


async def submit_and_cancel(store: JobStore, job_id: str) -> None:
    await store.cancel(job_id)


async def talk_and_fail(store: JobStore, job_id: str) -> None:
    await claimed(store, job_id, "w" * 128)
    for _ in range(23):
        step = Progress(phase="candidate", done=1234, total=4567)
        await asyncio.gather(*(store.progress(job_id, 1, step) for _ in range(100)))
    for _ in range(20):
        await store.log(job_id, 1, "é" * 2000)
    await store.fail(job_id, 1, job_error(ErrorCode.ENGINE_FAILED, "é" * 5000, "è" * 5000))


async def talk_and_succeed(store: JobStore, job_id: str) -> None:
    await claimed(store, job_id)
    for _ in range(23):
        step = Progress(phase="candidate", done=1234, total=4567)
        await asyncio.gather(*(store.progress(job_id, 1, step) for _ in range(100)))
    await store.finish(job_id, 1, **REPORT | {"artifacts": [f"artifact-{n}.parquet" for n in range(20)]})


@pytest.mark.parametrize("end", [submit_and_cancel, talk_and_fail, talk_and_succeed])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"metadata": {f"key-{n}": "m" * 80 for n in range(16)}},
        {"candidate": {"model": "tiny", "recipe": [STEP] * 8}},
        {"candidate": {"model": "m" * 128, "recipe": [STEP | {"group_size": 96 + n} for n in range(16)]}},
        {"text": {"source": "file", "path": "p" * 1000}, "metadata": {"long": "é" * 512}},
    ],
    ids=["plain", "metadata", "layers", "steps", "path"],
)
async def test_an_ended_job_takes_less_than_8_kb_of_redis(
    store: JobStore, client: Redis, docket: Docket, changes: dict[str, Any], end: Any
) -> None:
    job_id = new_job_id()
    await store.create(job_id, request(**changes), Idempotency("ci", "k", "f" * 64))
    await end(store, job_id)
    record = await got(store, job_id)
    await swept(store, docket)
    assert await bytes_of(client, job_id) < MOST_BYTES
    events = await store.events(job_id, 0)
    assert [event.number for event in events] == list(range(record.events - len(events) + 1, record.events + 1))
    assert json.loads(events[-1].data)["type"] == "end"
    assert await store.events(job_id, record.events, block_s=0.05) == []


async def test_the_last_fifty_events_of_a_job_outlive_its_end(store: JobStore, docket: Docket) -> None:
    job_id = await created(store)
    await store.claim(job_id, "w1")
    for done in range(100):
        await store.progress(job_id, 1, Progress(phase="p", done=done, total=100))
    await store.log(job_id, 1, "a line for people")
    await store.finish(job_id, 1, **REPORT)
    before = await store.events(job_id, 0)
    await swept(store, docket)
    after = await store.events(job_id, 0)
    assert after == before[-len(after) :]
    assert 40 <= len(after) <= 50
    assert await store.latest_message(job_id) == "a line for people"


async def test_a_recipe_is_shown_whole_where_it_is_short_and_never_with_its_text(store: JobStore) -> None:
    text = {"source": "inline", "documents": [{"id": "a", "text": "The quick brown fox."}]}
    steps = [{"type": "quantize.awq", "bits": 4, "calibration": text}, {"type": "prune.magnitude", "sparsity": 0.3}]
    job_id = await created(store, candidate={"model": "tiny", "recipe": steps})
    record = await got(store, job_id)
    first, second = record.job.candidate.recipe
    assert first["calibration"] == {"source": "inline", "documents": 1}
    assert (first["bits"], first["group_size"], second["sparsity"]) == (4, 64, 0.3)


# --- files


@pytest.mark.parametrize("end", ["finish", "fail", "cancelled"])
async def test_what_a_worker_left_when_it_died_at_the_end_of_its_job_is_tidied(
    store: JobStore, docket: Docket, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await created(store)
    await store.claim(job_id, "w1")
    leave(store, job_id)
    with monkeypatch.context() as dying:
        dying.setattr(files, "drop_request", lambda *_: None)
        if end == "finish":
            await store.finish(job_id, 1, **REPORT)
        elif end == "fail":
            await store.fail(job_id, 1, job_error(ErrorCode.ENGINE_FAILED, "x"))
        else:
            await store.cancelled(job_id, 1)
    assert [found for found, _ in files.requests(store.settings)] == [job_id]
    await swept(store, docket)
    assert list(files.requests(store.settings)) == []
    assert left_by_attempts(store, job_id) == (["attempt-1/report.json"] if end == "finish" else [])


async def test_a_request_without_a_job_is_removed_once_no_submission_can_be_under_way(
    store: JobStore, docket: Docket, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = await created(store)
    folder = store.settings.home / "requests"
    files.keep_request(store.settings, new_job_id(), b"a crash came before the record")
    (folder / f".{new_job_id()}.json.4711").write_text("a crash came before the rename")
    assert len(list(folder.iterdir())) == 3
    orphans: dict[Any, float] = {}
    for _ in range(2):
        await swept(store, docket, orphans=orphans)
    assert len(list(folder.iterdir())) == 3
    monkeypatch.setattr(reconcile, "ORPHAN_S", 0.0)
    await swept(store, docket, orphans=orphans)
    assert [path.name for path in folder.iterdir()] == [f"{waits}.json"]


async def test_a_submission_that_was_frozen_between_request_and_record_is_not_lost(
    store: JobStore, docket: Docket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "ORPHAN_S", 0.0)
    other = JobStore(store.client, store.settings)
    run = store._run

    async def frozen(script: str, *arguments: Any) -> Any:
        await swept(other, docket)  # by another API of the same home
        assert not list(files.requests(store.settings))
        return await run(script, *arguments)

    monkeypatch.setattr(store, "_run", frozen)
    job_id = await created(store)
    claim = await claimed(other, job_id)
    assert claim.request == request()


async def test_of_jobs_whose_files_are_too_large_together_the_one_that_ended_first_goes_first(store: JobStore) -> None:
    jobs: list[Any] = []
    for size in (300, 500, 400):
        job_id = await created(store)
        await store.claim(job_id, "w1")
        await store.finish(job_id, 1, **REPORT)
        report = store.settings.job_dir(job_id) / "attempt-1" / "report.json"
        report.parent.mkdir(parents=True)
        report.write_bytes(b"x" * size)
        await store.client.zadd(keys.ENDED, {job_id: -len(jobs)})  # the later it was made, the earlier it ended
        jobs.append(job_id)
    running = await created(store)
    await store.claim(running, "w1")
    leave(store, running)
    taken = sum(path.stat().st_size for path in (store.settings.home / "jobs").rglob("*") if path.is_file())
    for budget, left in ((taken, jobs), (taken - 1, jobs[:2]), (400, jobs[:1]), (0, [])):
        settings = store.settings.model_copy(update={"jobs_budget_bytes": budget})
        await reconcile.keep_budget(store, settings, lambda job_id: files.remove(store.settings, job_id), Swept())
        assert [job_id for job_id in jobs if await store.get(job_id)] == left
        assert [job_id for job_id in jobs if left_by_attempts(store, job_id)] == left
    assert left_by_attempts(store, running) != []


async def test_hidden_states_in_use_go_with_a_later_sweep_than_their_job(store: JobStore, docket: Docket) -> None:
    deleted, running = await created(store), await created(store)
    await store.claim(running, "w1")
    await store.cancel(deleted)
    root = store.settings.home / "references"
    for job_id, key in ((deleted, "one"), (running, "other")):
        note_state(root, job_id, key)
        (root / key).mkdir()
    reader = try_lock(root / ".locks" / "one", exclusive=False)
    assert reader is not None
    await delete(store, store.settings, deleted, None)
    await swept(store, docket)
    assert (root / "one").exists()
    reader.release()
    await swept(store, docket)
    assert [(root / key).exists() for key in ("one", "other")] == [False, True]


async def test_an_owner_that_fills_the_budget_loses_its_own_jobs_first(store: JobStore) -> None:
    jobs: dict[Any, Any] = {}
    for owner, sizes in (("small", (300, 300)), ("large", (500, 400, 400))):
        for size in sizes:
            job_id = new_job_id()
            await store.create(job_id, request(), owner=owner)
            await store.claim(job_id, "w1")
            await store.finish(job_id, 1, **REPORT)
            report = store.settings.job_dir(job_id) / "attempt-1" / "report.json"
            report.parent.mkdir(parents=True)
            report.write_bytes(b"x" * size)
            await store.client.zadd(keys.ENDED, {job_id: len(jobs)})
            jobs[job_id] = f"{owner} {size}"
    names = list(jobs.values())
    for budget, left in (
        (1899, [*names[:2], *names[3:]]),
        (1399, [*names[:2], names[4]]),
        (999, names[1:2] + names[4:]),
    ):
        settings = store.settings.model_copy(update={"jobs_budget_bytes": budget})
        await reconcile.keep_budget(store, settings, lambda job_id: files.remove(store.settings, job_id), Swept())
        assert [name for job_id, name in jobs.items() if await store.get(job_id)] == left


async def test_while_redis_has_little_memory_the_owner_with_most_failed_jobs_loses_them(
    store: JobStore, docket: Docket, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: dict[str, list[str]] = {"few": [], "many": []}
    for owner in ("few", "few", *["many"] * 8):
        job_id = new_job_id()
        await store.create(job_id, request(), owner=owner)
        await store.cancel(job_id)
        jobs[owner].append(job_id)
    monkeypatch.setattr(reconcile, "LOW_WATER", -1.0)
    await swept(store, docket)
    left = {owner: [one for one in ids if await store.get(one)] for owner, ids in jobs.items()}
    assert left == {"few": jobs["few"], "many": jobs["many"][5:]}


# --- how long


@pytest.mark.parametrize("days", [-30, 30, 31, 400])
async def test_a_clock_that_jumps_deletes_nothing_and_revives_nothing(
    store: JobStore, docket: Docket, client: Redis, days: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    await swept(store, docket)
    hold = Idempotency("ci", "k", "f")
    kept, queued, deleted = new_job_id(), await created(store), await created(store)
    await store.create(kept, request(), hold)
    await queue.submit(docket, queued)
    await store.claim(kept, "w1")
    await store.finish(kept, 1, **REPORT)
    leave(store, kept)
    await store.cancel(deleted)
    await store.delete(deleted)
    await swept(store, docket)
    before = [await client.hgetall(keys.job(job_id)) for job_id in (kept, queued)]
    for offset in (days * DAY_S, 0, days * DAY_S):
        wrong = jumped(store, offset, monkeypatch)
        for _ in range(3):
            done = await swept(wrong, docket)
            assert (done.resubmitted, done.cancelled, done.forgotten, done.kept) == (0, 0, 0, {})
        assert [await client.hgetall(keys.job(job_id)) for job_id in (kept, queued)] == before
        assert left_by_attempts(store, kept) == ["attempt-1/report.json"]
        assert await store.get(deleted) is None
        assert (await store.standing(hold)).kind == "replayed"  # type: ignore[union-attr]
    assert await wrong.claim(queued, "w1") is not None
    assert await status(store, queued) is JobStatus.RUNNING


async def test_no_clock_of_redis_ends_what_is_kept_of_a_job(store: JobStore, docket: Docket, client: Redis) -> None:
    ended, running = new_job_id(), await created(store)
    await store.create(ended, request(), Idempotency("ci", "k", "f"))
    await store.claim(running, "w1")
    await store.cancel(ended)
    for _ in range(2):
        lives = {name: await client.ttl(name) for name in await client.keys("hemostat-jobs:*")}
        assert set(lives.values()) == {-1}, lives
        await swept(store, docket)
