"""Workers and Redis are killed, stopped and restarted in mid-job; every job ends once, with one result."""

import json
import os
import signal
import time

import pytest

from app.contracts.errors import ErrorCode
from app.contracts.job import JobStatus
from tests.integration.workers.process.conftest import House
from tests.support.handlers import go, read_trace
from tests.support.worker import WorkerProcess, gone, halt, wait_for


def steps(house: House, job_id: str) -> list[tuple[int, int]]:
    """(step, attempt) in the order they were done."""
    return [
        (line["step"], line["attempt"])
        for line in read_trace(house.settings)
        if line["what"] == "step" and line["job"] == job_id
    ]


def assert_one_result(house: House, job_id: str) -> None:
    events = [json.loads(event) for event in house.owner.events(job_id)]
    assert [event["type"] for event in events].count("end") == 1
    assert events[-1] | {"at": 0} == {"type": "end", "status": "succeeded", "error": None, "at": 0}
    folder = house.settings.job_dir(job_id)
    wait_for(lambda: len(list(folder.iterdir())) == 1, what="end of tidying up")
    record = house.owner.record(job_id)
    assert record.report == f"attempt-{record.job.attempt}/report.json"
    assert (folder / record.report).is_file()


def test_a_killed_workers_job_is_resumed_by_another(house: House) -> None:
    owner = house.owner
    first = house.worker()
    job_id = owner.submit(do="count", steps="12", slice="0.15", halt="6")
    owner.wait_until(job_id, lambda record: record.job.progress.done >= 3)
    second = house.worker()
    (child,) = first.children()
    first.kill()
    wait_for(lambda: gone(child.pid), what="end of the child")
    go(house.settings, job_id)
    record = owner.wait(job_id)
    assert record.job.status is JobStatus.SUCCEEDED
    assert (record.job.attempt, record.tries) == (2, 2)
    done = steps(house, job_id)
    # Nothing that was done is done again, and the second attempt goes on where the first was killed.
    assert [step for step, _ in done] == list(range(12))
    assert {attempt for _, attempt in done} == {1, 2}
    assert_one_result(house, job_id)
    assert second.process.poll() is None


def test_owners_have_their_turns_in_a_circle_though_worker_and_redis_are_killed(house: House) -> None:
    """There is no API: workers hand the jobs over by themselves."""
    owner = house.owner
    first = house.worker()
    held = owner.submit(owner="ann", do="count", steps="2", halt="1")
    owner.wait_until(held, lambda record: record.job.progress.done >= 1)
    anns = [owner.submit(owner="ann", do="count", steps="1") for _ in range(4)]
    bobs = [owner.submit(owner="bob", do="count", steps="1") for _ in range(2)]
    assert house.valkey.pid is not None
    os.kill(house.valkey.pid, signal.SIGKILL)
    house.valkey.stop()
    house.valkey.start()
    first.kill()
    go(house.settings, held)
    house.worker()
    for job_id in (held, *anns, *bobs):
        owner.wait(job_id)
        assert_one_result(house, job_id)
    begun = [line["job"] for line in read_trace(house.settings) if line["what"] == "begun"]
    assert [job_id for job_id in begun if job_id in anns + bobs] == [
        *(anns[0], bobs[0], anns[1], bobs[1]),
        *(anns[2], anns[3]),
    ]


def test_a_job_that_kills_every_worker_ends_as_failed(house: House) -> None:
    owner = house.owner
    job_id = owner.submit(do="kill_worker")
    for _ in range(house.settings.max_attempts):
        worker = house.worker()
        worker.process.wait(90)
        assert worker.process.returncode == -signal.SIGKILL
    last = house.worker()
    record = owner.wait(job_id)
    assert record.job.status is JobStatus.FAILED
    assert record.job.error.code is ErrorCode.WORKER_LOST
    assert record.tries == house.settings.max_attempts
    folder = house.settings.job_dir(job_id)
    wait_for(lambda: not folder.exists(), what="end of tidying up")
    assert last.process.poll() is None
    assert owner.wait(owner.submit(do="count", steps="1")).job.status is JobStatus.SUCCEEDED


def test_a_worker_that_was_frozen_cannot_overwrite_the_one_that_took_over(house: House) -> None:
    owner = house.owner
    frozen = house.worker()
    job_id = owner.submit(do="count", steps="12", slice="0.15", halt="6")
    owner.wait_until(job_id, lambda record: record.job.progress.done >= 2)
    other = house.worker()
    halt(frozen.pid)
    owner.wait_until(job_id, lambda record: record.job.attempt == 2)
    os.kill(frozen.pid, signal.SIGCONT)
    wait_for(lambda: "attempt 1: lost" in frozen.text(), what="the frozen worker to notice")
    go(house.settings, job_id)
    record = owner.wait(job_id)
    assert (record.job.status, record.job.attempt) == (JobStatus.SUCCEEDED, 2)
    assert_one_result(house, job_id)
    assert frozen.process.poll() is None
    assert other.process.poll() is None


def test_a_job_whose_lease_ran_out_stays_with_its_worker_while_that_lives(house: House) -> None:
    """As after a Redis that was away for longer than a lease lasts."""
    owner = house.owner
    negligent = house.worker(redelivery_s=20.0)  # renews its lease too late for the other one
    job_id = owner.submit(do="count", steps="12", slice="0.15", halt="6")
    owner.wait_until(job_id, lambda record: record.job.progress.done >= 2)
    other = house.worker()
    wait_for(lambda: "was delivered again, and is left to" in other.text(), what="delivery to the other worker")
    next_id = owner.submit(do="count", steps="1")
    assert owner.wait(next_id).worker != owner.record(job_id).worker, "the other one takes what is nobody's"
    # What it was delivered is not acknowledged: should its worker die now, the job is delivered once more.
    negligent.kill()
    owner.wait_until(job_id, lambda record: record.job.attempt == 2)
    go(house.settings, job_id)
    record = owner.wait(job_id)
    assert (record.job.status, record.tries) == (JobStatus.SUCCEEDED, 2)
    assert_one_result(house, job_id)


def test_redis_killed_and_restarted_in_mid_job(house: House) -> None:
    owner = house.owner
    house.worker()
    job_id = owner.submit(do="count", steps="12", slice="0.15", halt="6")
    owner.wait_until(job_id, lambda record: record.job.progress.done >= 2)
    waiting = owner.submit(do="count", steps="1")
    assert house.valkey.pid is not None
    os.kill(house.valkey.pid, signal.SIGKILL)
    house.valkey.stop()
    time.sleep(1.0)
    house.valkey.start()
    go(house.settings, job_id)
    record = owner.wait(job_id)
    assert (record.job.status, record.tries) == (JobStatus.SUCCEEDED, 1)
    assert [step for step, _ in steps(house, job_id)] == list(range(12))
    assert_one_result(house, job_id)
    assert owner.wait(waiting).job.status is JobStatus.SUCCEEDED


def test_a_job_that_ends_while_redis_is_away_is_recorded_when_it_is_back(house: House) -> None:
    owner = house.owner
    house.worker()
    job_id = owner.submit(do="count", steps="10", slice="0.1", halt="6")
    owner.wait_until(job_id, lambda record: record.job.progress.done >= 2)
    house.valkey.stop()
    go(house.settings, job_id)
    folder = house.settings.job_dir(job_id)
    wait_for((folder / "attempt-1" / "report.json").exists, what="the report")
    time.sleep(0.5)
    house.valkey.start()
    record = owner.wait(job_id)
    assert (record.job.status, record.tries) == (JobStatus.SUCCEEDED, 1)
    assert_one_result(house, job_id)


def test_a_drain_lets_the_running_job_finish_and_takes_no_other(house: House) -> None:
    owner = house.owner
    worker = house.worker()
    running = owner.submit(do="count", steps="10", slice="0.1", halt="6")
    owner.wait_until(running, lambda record: record.job.progress.done >= 1)
    waiting = owner.submit(do="count", steps="1")
    worker.terminate()
    wait_for(lambda: (worker.pid, True) in [(one.pid, one.draining) for one in owner.workers()], what="drain")
    go(house.settings, running)
    assert worker.process.wait(60) == 0
    assert owner.record(running).job.status is JobStatus.SUCCEEDED
    assert owner.record(waiting).job.status is JobStatus.QUEUED
    assert worker.pid not in [one.pid for one in owner.workers()]
    house.worker()
    assert owner.wait(waiting).job.status is JobStatus.SUCCEEDED


def test_a_drain_gives_a_long_job_back_at_once_and_it_is_resumed(lone_house: House) -> None:
    owner = lone_house.owner
    # Leases longer than a test may take: only a job that was given back can run elsewhere.
    first = lone_house.worker(redelivery_s=600.0, drain_s=0.5)
    job_id = owner.submit(do="count", steps="12", slice="0.15", halt="6")
    owner.wait_until(job_id, lambda record: record.job.progress.done >= 3)
    second = lone_house.worker(redelivery_s=600.0)
    first.terminate()
    assert first.process.wait(60) == 0
    owner.wait_until(job_id, lambda record: record.job.attempt == 2)
    go(lone_house.settings, job_id)
    record = owner.wait(job_id)
    # Being told to go is not the job's fault: it counts as no try.
    assert (record.job.status, record.job.attempt, record.tries) == (JobStatus.SUCCEEDED, 2, 1)
    assert [step for step, _ in steps(lone_house, job_id)] == list(range(12))
    assert_one_result(lone_house, job_id)
    assert second.process.poll() is None


def test_a_second_signal_does_not_wait_and_a_deaf_handler_is_killed(house: House) -> None:
    owner = house.owner
    worker = house.worker(drain_s=300.0)
    job_id = owner.submit(do="stubborn")
    owner.wait_until(job_id, lambda record: record.job.progress.phase == "engine")
    family = worker.children()
    assert len(family) == 2
    assert worker.stop() == 0  # which waits a minute, not five
    wait_for(lambda: all(gone(process.pid) for process in family), what="end of all that was killed")
    assert owner.record(job_id).job.status is JobStatus.QUEUED
    owner.cancel(job_id)


def test_a_job_that_cannot_be_given_back_because_redis_is_away_is_delivered_again(house: House) -> None:
    owner = house.owner
    worker = house.worker(drain_s=300.0)
    job_id = owner.submit(do="count", steps="12", slice="0.1", halt="6")
    owner.wait_until(job_id, lambda record: record.job.progress.done >= 2)
    house.valkey.stop()
    try:
        assert worker.stop() == 0
    finally:
        house.valkey.start()
    assert "will be delivered again" in worker.text()
    assert owner.record(job_id).job.status is JobStatus.RUNNING
    go(house.settings, job_id)
    house.worker()
    record = owner.wait(job_id)
    assert (record.job.status, record.job.attempt) == (JobStatus.SUCCEEDED, 2)
    assert [step for step, _ in steps(house, job_id)] == list(range(12))
    assert_one_result(house, job_id)


def test_a_worker_waits_for_a_redis_that_comes_later(house: House) -> None:
    house.valkey.stop()
    worker = house.worker()
    time.sleep(1.5)
    assert worker.process.poll() is None
    house.valkey.start()
    assert house.owner.wait(house.owner.submit(do="count", steps="1")).job.status is JobStatus.SUCCEEDED


def test_a_worker_that_never_found_redis_goes_when_told(house: House) -> None:
    house.valkey.stop()
    try:
        worker = house.worker()
        time.sleep(0.5)
        worker.terminate()
        assert worker.process.wait(60) == 0
    finally:
        house.valkey.start()


@pytest.mark.parametrize("busy", [False, True])
def test_a_worker_goes_when_told_also_while_redis_hangs(house: House, busy: bool) -> None:
    worker = house.worker(drain_s=1.0)
    job_id = house.owner.submit(do="count", steps="12", slice="0.1", halt="6") if busy else None
    if job_id is not None:
        house.owner.wait_until(job_id, lambda record: record.job.progress.done > 0)
    family = worker.children()
    assert house.valkey.pid is not None
    halt(house.valkey.pid)
    try:
        time.sleep(0.5)
        worker.terminate()
        assert worker.process.wait(90) == 0
        wait_for(lambda: all(gone(child.pid) for child in family), what="end of its child")
    finally:
        os.kill(house.valkey.pid, signal.SIGCONT)
    if job_id is not None:
        house.owner.cancel(job_id)
        house.worker()
        assert house.owner.wait(job_id).job.status is JobStatus.CANCELLED


def test_a_taken_metrics_port_is_named(house: House) -> None:
    taken = house.worker().metrics_url()
    port = int(taken.rsplit(":", 1)[1].split("/")[0])
    log = house.settings.home / "refused.log"
    with WorkerProcess(house.settings.model_copy(update={"worker_metrics_port": port}), log) as refused:
        assert refused.process.wait(90) == 1
    assert f"127.0.0.1:{port}" in refused.text()
    assert "HEMOSTAT_WORKER_METRICS_PORT" in refused.text()
