"""A deployment's own fit makes way for the jobs that people asked for, loses nothing, and comes to its end."""

import asyncio
from typing import Any

import pytest

from app.contracts.deployment import DeploymentRequest
from app.contracts.job import JobStatus
from app.deployments.store import DeploymentStore
from app.jobs.connection import connect
from tests.integration.workers.process.conftest import House
from tests.support.handlers import go, read_trace
from tests.support.worker import wait_for
from workers.process.yielding import turn_s

DEPLOYED = {"reference": {"model": "a"}, "model": {"model": "b"}}


def deployment(house: House, name: str, fit: str | None) -> str:
    """Makes a deployment; `fit` is the job that fits it."""

    async def act() -> str:
        client = connect(house.settings)
        try:
            store = DeploymentStore(client, house.settings)
            if fit is None:
                return (await store.create(DeploymentRequest.model_validate({"name": name, **DEPLOYED}))).id
            await store.start_fit(name, fit)
            return name
        finally:
            await client.aclose()

    return asyncio.run(act())


def calibrate(house: House, deployment_id: str, **metadata: str) -> str:
    body: dict[str, Any] = {
        "kind": "calibrate",
        "reference": {"model": "a"},
        "candidate": {"model": "b"},
        "deployment": deployment_id,
        "metadata": {"do": "count", **metadata},
    }
    return house.owner.submit_request(body)


def steps(house: House, job_id: str) -> list[int]:
    return [line["step"] for line in read_trace(house.settings) if line["what"] == "step" and line["job"] == job_id]


def test_a_fit_makes_way_and_goes_on_from_where_it_was(house: House) -> None:
    owner = house.owner
    made = deployment(house, "way", None)
    fit = calibrate(house, made, steps="8", halt="4")
    deployment(house, made, fit)
    house.worker(fit_turn_s=0.5)
    wait_for(lambda: len(steps(house, fit)) == 4, what="the first half")
    asked = [owner.submit(do="count", steps="2") for _ in range(2)]
    assert [owner.wait(job_id).job.status for job_id in asked] == [JobStatus.SUCCEEDED] * 2
    record = owner.record(fit)
    assert not record.ended
    assert record.job.progress.done >= 1, "how far it is stays to be seen"
    go(house.settings, fit)
    record = owner.wait(fit)
    assert (record.job.status, record.tries) == (JobStatus.SUCCEEDED, 1), "it is no lost attempt"
    assert record.job.attempt >= 2
    assert steps(house, fit) == list(range(8)), "each piece once"
    assert any("makes way" in event for event in owner.events(fit))


def test_a_job_that_somebody_asked_for_makes_no_way(house: House) -> None:
    """A calibration for a deployment too: only the fit that the service queued itself is nobody's."""
    owner = house.owner
    made = deployment(house, "no-way", None)
    mine = calibrate(house, made, steps="30", slice="0.3")
    house.worker(fit_turn_s=0.1)
    owner.wait_until(mine, lambda record: record.job.progress.done >= 1)
    other = owner.submit(do="count", steps="1")
    assert owner.wait(mine).job.attempt == 1
    assert owner.wait(other).job.status is JobStatus.SUCCEEDED


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 30), (2, 60), (5, 480), (13, 122_880), (500, 122_880)])
def test_turns_grow_so_that_every_fit_ends(attempt: int, seconds: float) -> None:
    assert turn_s(30.0, attempt) == seconds
