"""A child that hangs, and an attempt that takes longer than its request allows."""

import time
import urllib.request

import psutil
import pytest

from app.contracts.errors import ErrorCode
from app.contracts.job import JobError, JobStatus
from app.jobs.record import JobRecord
from tests.integration.workers.process.conftest import House
from tests.support.handlers import go, read_trace
from tests.support.worker import WorkerProcess, gone, halt, wait_for

STALL_S = 3.0


@pytest.fixture(scope="module")
def worker(shared_house: House) -> WorkerProcess:
    return shared_house.worker(job_stall_s=STALL_S, help_others=False)


def failed(record: JobRecord, code: ErrorCode) -> JobError:
    assert record.job.status is JobStatus.FAILED
    assert record.job.error.code is code
    assert record.tries == 1
    assert record.job.error is not None
    return record.job.error


def works(house: House) -> None:
    assert house.owner.wait(house.owner.submit(do="count", steps="1")).job.status is JobStatus.SUCCEEDED


@pytest.mark.parametrize("deed", ["hang", "hang_in_c"])
def test_a_job_that_hangs_is_ended_with_its_stack_in_the_log_and_the_worker_goes_on(
    shared_house: House, worker: WorkerProcess, deed: str
) -> None:
    owner = shared_house.owner
    job_id = owner.submit(do=deed)
    error = failed(owner.wait(job_id), ErrorCode.STALLED)
    assert f"{STALL_S:g} s" in error.detail and "HEMOSTAT_JOB_STALL_S" in error.hint
    begun = [line for line in read_trace(shared_house.settings) if line.get("job") == job_id or "helper" in line]
    assert all(gone(line["pid"]) and gone(line.get("helper", line["pid"])) for line in begun)
    assert f" in {deed}\n" in worker.text()
    assert "river" not in worker.text(), "a stack has no values"
    works(shared_house)
    with urllib.request.urlopen(worker.metrics_url(), timeout=60) as answer:
        metrics = answer.read().decode()
    assert 'hemostat_worker_child_exits_total{reason="stalled"}' in metrics


def test_the_limit_of_silence_grows_with_the_weights_that_a_slow_disk_has_to_load(
    shared_house: House, worker: WorkerProcess
) -> None:
    home = shared_house.settings.home
    (home / "large").mkdir()
    with (home / "large" / "model.safetensors").open("wb") as weights:
        weights.truncate(300_000_000)  # 6 s of 50 MB each; sparse
    shared_house.settings.models_file.write_text('[models.large]\npath = "large"\n')
    side = {"model": "large"}
    text = {"source": "inline", "documents": [{"id": "d", "text": "some words"}]}
    job_id = shared_house.owner.submit_request(
        {"kind": "compare", "reference": side, "candidate": {**side}, "self_check": True, "text": text,
         "metadata": {"do": "hang"}}
    )  # fmt: skip
    begun = time.monotonic()
    error = failed(shared_house.owner.wait(job_id), ErrorCode.STALLED)
    assert time.monotonic() - begun >= STALL_S + 6
    assert f"{STALL_S + 6:g} s" in error.detail


def test_a_job_that_could_be_stopped_is_no_job_that_hangs(shared_house: House, worker: WorkerProcess) -> None:
    job_id = shared_house.owner.submit(do="quiet", seconds=str(2 * STALL_S))
    assert shared_house.owner.wait(job_id).job.status is JobStatus.SUCCEEDED


def test_a_worker_that_was_frozen_does_not_blame_its_job(shared_house: House, worker: WorkerProcess) -> None:
    owner = shared_house.owner
    job_id = owner.submit(do="count", steps="10", halt="5")
    owner.wait_until(job_id, lambda record: record.job.progress.done >= 1)
    halt(worker.pid)
    try:
        time.sleep(2 * STALL_S)
    finally:
        psutil.Process(worker.pid).resume()
    go(shared_house.settings, job_id)
    assert owner.wait(job_id).job.status is JobStatus.SUCCEEDED


def test_silence_is_a_metric_while_a_job_runs(shared_house: House, worker: WorkerProcess) -> None:
    def silent() -> float:
        with urllib.request.urlopen(worker.metrics_url(), timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("hemostat_worker_job_silent_seconds "))

    job_id = shared_house.owner.submit(do="hang")
    wait_for(lambda: silent() > 0, what="silence")
    failed(shared_house.owner.wait(job_id), ErrorCode.STALLED)
    wait_for(lambda: silent() == 0, what="end of it")


def test_who_helps_and_hangs_lets_go_of_what_it_took(shared_house: House, worker: WorkerProcess) -> None:
    owner = shared_house.owner
    job_id = owner.submit(do="points", steps="4", own="1", hang="")
    owner.wait_until(job_id, lambda record: record.job.progress.done >= 1)
    helper = shared_house.worker(job_stall_s=STALL_S)
    wait_for(lambda: " in help_out\n" in helper.text(), what="stack of the helper")
    go(shared_house.settings, job_id)
    assert owner.wait(job_id).job.status is JobStatus.SUCCEEDED
    assert helper.stop() == 0


@pytest.mark.parametrize("deed", ["count", "stubborn"])
def test_an_attempt_that_takes_longer_than_was_allowed_fails(
    shared_house: House, worker: WorkerProcess, deed: str
) -> None:
    owner = shared_house.owner
    job_id = owner.submit(timeout_s=1.5, do=deed, steps="10", halt="5")
    error = failed(owner.wait(job_id), ErrorCode.TIMED_OUT)
    assert "1.5 s" in error.detail
    works(shared_house)


def test_an_attempt_that_ends_in_time_is_not_touched(shared_house: House, worker: WorkerProcess) -> None:
    job_id = shared_house.owner.submit(timeout_s=600.0, do="count", steps="2")
    assert shared_house.owner.wait(job_id).job.status is JobStatus.SUCCEEDED
