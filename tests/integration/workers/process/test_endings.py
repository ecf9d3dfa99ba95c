"""How attempts end: each deed of a handler, by a real worker and a real child over a real Valkey."""

import json
import subprocess
import time
import urllib.request

import pytest

from app.contracts.errors import ErrorCode
from app.contracts.job import JobStatus
from tests.integration.workers.process.conftest import House
from tests.support.handlers import SECRET, go, read_trace
from tests.support.tools import tool
from tests.support.worker import WorkerProcess, gone, wait_for
from workers.process.context import PROGRESS_INTERVAL_S


@pytest.fixture(autouse=True)
def _worker(standing_worker: WorkerProcess) -> WorkerProcess:
    return standing_worker


def left(house: House, job_id: str, *files: str) -> None:
    """Waits until the worker has tidied up after an ended job, and these are its files."""
    folder = house.settings.job_dir(job_id)

    def tidy() -> bool:
        if not files:
            return not folder.exists()
        found = [name for name in folder.rglob("*") if name.is_file()]
        return not (folder / "partial").exists() and sorted(str(path.relative_to(folder)) for path in found) == [*files]

    wait_for(tidy, what="end of tidying up")


def test_a_finished_job_has_its_report_and_artifacts_and_no_scratch(shared_house: House) -> None:
    owner = shared_house.owner
    job_id = owner.submit(do="count", steps="4")
    record = owner.wait(job_id)
    assert record.job.status is JobStatus.SUCCEEDED
    assert (record.job.severity, record.job.attempt, record.tries) == ("mild", 1, 1)
    assert record.job.classes == ("none", "mild"), "those of the report's verdict"
    assert record.report == "attempt-1/report.json"
    assert record.job.artifacts == ("tokens.txt",)
    left(shared_house, job_id, "attempt-1/report.json", "attempt-1/tokens.txt")
    report = json.loads((shared_house.settings.job_dir(job_id) / record.report).read_text())
    assert report == {"severity": "mild", "steps": [0, 1, 2, 3]}
    kinds = [json.loads(event)["type"] for event in owner.events(job_id)]
    assert kinds[:2] == ["state", "state"]
    assert kinds[-3:] == ["log", "state", "end"]
    assert "progress" in kinds


@pytest.mark.parametrize(
    ("deed", "code", "told"),
    [
        ("segfault", ErrorCode.ENGINE_FAILED, "SIGSEGV"),
        ("killed", ErrorCode.ENGINE_OUT_OF_MEMORY, "memory ran out"),
        ("exit_now", ErrorCode.ENGINE_FAILED, "status 3"),
        ("allocate", ErrorCode.ENGINE_OUT_OF_MEMORY, "MemoryError"),
        ("fill_disk", ErrorCode.DISK_FULL, "disk filled up"),
        ("refuse", ErrorCode.HEAD_MISMATCH, "layer 3 differs"),
        ("stop_unasked", ErrorCode.INTERNAL, "stopped without being told"),
        ("odd_artifact", ErrorCode.INTERNAL, "ValueError in the worker"),
        ("tell_secret", ErrorCode.INTERNAL, "ValueError in tests.support.handlers:"),
    ],
)
def test_a_failed_job_says_why_and_the_worker_goes_on(
    shared_house: House, _worker: WorkerProcess, deed: str, code: ErrorCode, told: str
) -> None:
    owner = shared_house.owner
    job_id = owner.submit(SECRET, do=deed)
    record = owner.wait(job_id)
    assert record.job.status is JobStatus.FAILED
    assert record.job.error.code is code
    assert told in record.job.error.detail
    assert record.job.error.hint or deed == "stop_unasked"
    assert record.tries == 1
    left(shared_house, job_id)
    after = owner.submit(do="count", steps="1")
    assert owner.wait(after).job.status is JobStatus.SUCCEEDED
    assert _worker.process.poll() is None
    everything = _worker.text() + "".join(owner.events(job_id)) + record.job.model_dump_json()
    assert "river" not in everything


def test_a_warm_child_serves_job_after_job(shared_house: House) -> None:
    owner = shared_house.owner
    jobs = [owner.submit(do="count", steps="1") for _ in range(3)]
    for job_id in jobs:
        assert owner.wait(job_id).job.status is JobStatus.SUCCEEDED
    steps = [line for line in read_trace(shared_house.settings) if line.get("job") in jobs]
    assert len({line["pid"] for line in steps}) == 1


@pytest.mark.parametrize(
    ("deed", "told"),
    [
        ("allocate_on_a_gpu", ("20.00 GiB", "15.32 GiB is free", "this process has 63.70 GiB")),
        ("find_no_room", ("16.06 GB",)),
    ],
)
def test_the_job_after_one_that_ran_out_of_memory_has_a_new_process(
    shared_house: House, deed: str, told: tuple[str, ...]
) -> None:
    """Whatever the old one held of the device is free then."""
    owner = shared_house.owner
    before = owner.submit(do="count", steps="1")
    owner.wait(before)
    error = owner.wait(owner.submit(do=deed)).job.error
    assert error.code is ErrorCode.ENGINE_OUT_OF_MEMORY
    assert [words for words in told if words not in error.detail] == []
    after = owner.submit(do="count", steps="1")
    assert owner.wait(after).job.status is JobStatus.SUCCEEDED
    steps = [line for line in read_trace(shared_house.settings) if line.get("job") in (before, after)]
    assert len({line["pid"] for line in steps}) == 2


def test_cancelling_stops_a_listening_handler_at_once_and_keeps_its_process(shared_house: House) -> None:
    owner = shared_house.owner
    job_id = owner.submit(do="count", steps="12000", slice="0.05")
    owner.wait_until(job_id, lambda record: record.job.progress.done > 0)
    owner.cancel(job_id)
    record = owner.wait(job_id)  # which waits a minute and a half: it would count for ten
    assert record.job.status is JobStatus.CANCELLED
    left(shared_house, job_id)
    after = owner.submit(do="count", steps="1")
    owner.wait(after)
    assert len({line["pid"] for line in read_trace(shared_house.settings) if line.get("job") in (job_id, after)}) == 1


def test_cancelling_kills_a_deaf_handler_and_what_it_started(shared_house: House) -> None:
    owner = shared_house.owner
    job_id = owner.submit(do="stubborn")
    owner.wait_until(job_id, lambda record: record.job.progress.phase == "engine")
    helper = next(line for line in reversed(read_trace(shared_house.settings)) if line["what"] == "helper")
    begun = time.monotonic()
    owner.cancel(job_id)
    record = owner.wait(job_id)
    assert time.monotonic() - begun >= shared_house.settings.cancel_grace_s  # and it would sleep for ten minutes
    assert record.job.status is JobStatus.CANCELLED
    wait_for(lambda: gone(helper["pid"]) and gone(helper["helper"]), what="end of all that was killed")
    assert owner.wait(owner.submit(do="count", steps="1")).job.status is JobStatus.SUCCEEDED


def test_a_job_that_was_cancelled_in_the_queue_never_runs(shared_house: House) -> None:
    owner = shared_house.owner
    first = owner.submit(do="count", steps="10", halt="5")
    second = owner.submit(do="count", steps="1")
    owner.cancel(second)
    go(shared_house.settings, first)
    assert owner.record(second).job.status is JobStatus.CANCELLED
    assert owner.wait(first).job.status is JobStatus.SUCCEEDED
    third = owner.submit(do="count", steps="1")
    owner.wait(third)
    assert not [line for line in read_trace(shared_house.settings) if line.get("job") == second]


def test_a_talkative_handler_is_heard_whole(shared_house: House, _worker: WorkerProcess) -> None:
    owner = shared_house.owner
    begun = time.monotonic()
    job_id = owner.submit(do="talk")
    assert owner.wait(job_id).job.status is JobStatus.SUCCEEDED
    seconds = time.monotonic() - begun
    with urllib.request.urlopen(_worker.metrics_url(), timeout=60) as answer:
        text = answer.read().decode()
    assert 'hemostat_kl_nats_count{model="talk",recipe="none",reference="a"} 20000.0' in text
    assert "no_such_metric" not in text
    assert "no metric 'no_such_metric'" in _worker.text()
    assert len(owner.events(job_id)) < 20 + seconds / PROGRESS_INTERVAL_S


def test_promtool_has_nothing_to_say(shared_house: House, _worker: WorkerProcess) -> None:
    owner = shared_house.owner
    owner.wait(owner.submit(do="count", steps="1"))
    with urllib.request.urlopen(_worker.metrics_url(), timeout=60) as answer:
        text = answer.read()
    assert b"hemostat_kl_nats_bucket" in text
    done = subprocess.run(
        [tool("promtool"), "check", "metrics"], input=text, capture_output=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_the_worker_says_what_it_does(shared_house: House, _worker: WorkerProcess) -> None:
    owner = shared_house.owner
    job_id = owner.submit(do="count", steps="1000", slice="0.05")
    wait_for(lambda: [worker.job for worker in owner.workers()] == [job_id], what="heartbeat that names the job")
    (worker,) = owner.workers()
    assert (worker.pid, worker.draining) == (_worker.pid, False)
    owner.cancel(job_id)
    owner.wait(job_id)
    wait_for(lambda: [worker.job for worker in owner.workers()] == [None], what="heartbeat that names no job")
