"""Jobs in pages, filtered, against a real server."""

import pytest
from redis.asyncio import Redis

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.job import JobStatus
from app.jobs import keys
from app.jobs.filters import Filters
from app.jobs.store import JobStore
from tests.integration.app.jobs.stored import created


async def test_pages_go_through_all_jobs_newest_first_and_back(store: JobStore) -> None:
    ids = [await created(store) for _ in range(7)]
    newest = ids[::-1]

    async def page(**options: str) -> tuple[list[str], bool]:
        records, more = await store.page(limit=3, **options)
        return [record.job.id for record in records], more is not None

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
        return [record.job.id for record in records], more is not None

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
