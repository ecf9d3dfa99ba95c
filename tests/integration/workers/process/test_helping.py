"""An idle worker helps with the points of another worker's job, and nothing that befalls it touches that job."""

import time
from typing import Any

import httpx
import pytest

from app.contracts.job import JobStatus
from tests.integration.workers.process.conftest import House
from tests.support.handlers import SECRET, go, read_trace
from tests.support.worker import WorkerProcess, wait_for
from workers.process.helping import LOOK_S


def told(house: House, job_id: str, what: str) -> list[dict[str, Any]]:
    return [line for line in read_trace(house.settings) if line["what"] == what and line.get("job") == job_id]


@pytest.fixture
def pair(house: House) -> tuple[WorkerProcess, WorkerProcess]:
    return house.worker(), house.worker()


def helper_of(house: House, job_id: str, pair: tuple[WorkerProcess, WorkerProcess]) -> WorkerProcess:
    """The worker that does not have the job."""
    has = house.owner.record(job_id).worker
    return next(worker for worker in pair if f"-{worker.pid}-" not in has)


def test_two_workers_share_the_points_of_a_job(house: House, pair: tuple[WorkerProcess, WorkerProcess]) -> None:
    job_id = house.owner.submit(do="points", steps="5", own="2")
    record = house.owner.wait(job_id)
    assert record.job.status is JobStatus.SUCCEEDED
    assert record.job.attempt == 1
    points = told(house, job_id, "point")
    assert sorted(line["step"] for line in points) == list(range(5)), "each point once"
    helped = [line for line in points if line["helping"]]
    assert len(helped) >= 3
    assert {line["pid"] for line in helped}.isdisjoint(line["pid"] for line in points if not line["helping"])
    wait_for(
        lambda: [path.name for path in house.settings.job_dir(job_id).iterdir()] == ["attempt-1"], what="tidying up"
    )


def test_a_job_of_its_own_comes_before_helping(house: House, pair: tuple[WorkerProcess, WorkerProcess]) -> None:
    shared = house.owner.submit(do="points", steps="2", own="1", loiter="yes")
    wait_for(lambda: any(line["helping"] for line in told(house, shared, "point begun")), what="help")
    own = house.owner.submit(do="count", steps="2")
    assert house.owner.wait(own).job.status is JobStatus.SUCCEEDED
    assert not house.owner.record(shared).ended
    go(house.settings, shared)
    assert house.owner.wait(shared).job.status is JobStatus.SUCCEEDED
    assert all(worker.process.poll() is None for worker in pair)


def test_the_list_of_workers_says_who_helps_with_what(house: House, pair: tuple[WorkerProcess, WorkerProcess]) -> None:
    job_id = house.owner.submit(do="points", steps="3", own="1", loiter="yes")
    wait_for(lambda: any(line["helping"] for line in told(house, job_id, "point begun")), what="help")
    helper = helper_of(house, job_id, pair)
    expected = {worker.pid: (None, job_id) if worker is helper else (job_id, None) for worker in pair}

    def listed() -> bool:
        return {worker.pid: (worker.job, worker.helping) for worker in house.owner.workers()} == expected

    wait_for(listed, what="their heartbeats")
    assert "hemostat_worker_helping 1.0" in httpx.get(helper.metrics_url(), timeout=60).text
    go(house.settings, job_id)
    house.owner.wait(job_id)
    wait_for(lambda: {worker.helping for worker in house.owner.workers()} == {None}, what="the end of it")


def test_workers_that_may_not_help_leave_every_point_to_the_other(house: House) -> None:
    for _ in range(2):
        house.worker(help_others=False)
    job_id = house.owner.submit(do="points", steps="3", own="1", loiter="yes")
    wait_for(lambda: told(house, job_id, "point begun"), what="a point")
    time.sleep(3 * LOOK_S)
    assert {worker.helping for worker in house.owner.workers()} == {None}
    go(house.settings, job_id)
    assert house.owner.wait(job_id).job.status is JobStatus.SUCCEEDED
    assert [line["helping"] for line in told(house, job_id, "point begun")] == [False] * 3


def test_the_point_of_a_killed_helper_is_taken_over(house: House, pair: tuple[WorkerProcess, WorkerProcess]) -> None:
    job_id = house.owner.submit(do="points", steps="3", own="1", loiter="yes")
    wait_for(lambda: any(line["helping"] for line in told(house, job_id, "point begun")), what="help")
    helper_of(house, job_id, pair).kill()
    go(house.settings, job_id)
    record = house.owner.wait(job_id)
    assert record.job.status is JobStatus.SUCCEEDED
    assert (record.job.attempt, record.tries) == (1, 1)
    assert sorted(line["step"] for line in told(house, job_id, "point")) == [0, 1, 2]


def test_the_job_of_a_killed_worker_goes_on_from_the_points_of_both(
    house: House, pair: tuple[WorkerProcess, WorkerProcess]
) -> None:
    job_id = house.owner.submit(do="points", steps="4", own="1", loiter="yes")
    wait_for(lambda: any(line["helping"] for line in told(house, job_id, "point begun")), what="help")
    helper = helper_of(house, job_id, pair)
    next(worker for worker in pair if worker is not helper).kill()
    go(house.settings, job_id)
    record = house.owner.wait(job_id)
    assert record.job.status is JobStatus.SUCCEEDED
    assert (record.job.attempt, record.tries) == (2, 2)
    assert sorted(line["step"] for line in told(house, job_id, "point")) == [0, 1, 2, 3], "no point is lost, none twice"


def test_help_that_fails_is_not_the_jobs_failure(house: House, pair: tuple[WorkerProcess, WorkerProcess]) -> None:
    job_id = house.owner.submit(SECRET, do="points", steps="2", own="1", fail="yes")
    wait_for(lambda: told(house, job_id, "helping"), what="help")
    helper = helper_of(house, job_id, pair)
    wait_for(lambda: "helping failed" in helper.text(), what="its failure")
    go(house.settings, job_id)
    record = house.owner.wait(job_id)
    assert record.job.status is JobStatus.SUCCEEDED
    assert len(told(house, job_id, "helping")) == 1
    assert "river" not in helper.text()
