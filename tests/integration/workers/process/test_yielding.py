"""A deployment's own fit makes way for the jobs that people asked for, loses nothing, and comes to its end."""

import asyncio
import os
import signal
from typing import Any

import pytest

from app.contracts.deployment import DeploymentRequest
from app.contracts.errors import ErrorCode
from app.contracts.job import JobStatus
from app.deployments.store import DeploymentStore
from app.jobs import keys
from app.jobs.ids import new_job_id
from app.jobs.store import JobStore
from app.kinds.registry import requests
from tests.integration.workers.process.conftest import House
from tests.support.handlers import go, read_trace
from tests.support.patient import connect_patiently
from tests.support.worker import wait_for
from workers.process.context import scratch_folder
from workers.process.yielding import waiting

DEPLOYED = {"reference": {"model": "a"}, "model": {"model": "b"}}
COMPARE = {
    "kind": "compare",
    "reference": {"model": "a"},
    "candidate": {"model": "b"},
    "text": {"source": "inline", "documents": [{"id": "d", "text": "A plain text of a few words."}]},
}


def deployment(house: House, name: str, fit: str | None) -> str:
    """Makes a deployment; `fit` is the job that fits it."""

    async def act() -> str:
        client = connect_patiently(house.settings)
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


def own_fit(house: House, name: str, **metadata: str) -> str:
    """A fit that the service queued by itself."""
    made = deployment(house, name, None)
    fit = calibrate(house, made, **metadata)
    deployment(house, made, fit)
    return fit


def steps(house: House, job_id: str) -> list[int]:
    return [line["step"] for line in read_trace(house.settings) if line["what"] == "step" and line["job"] == job_id]


def test_a_fit_makes_way_and_goes_on_from_where_it_was(house: House) -> None:
    owner = house.owner
    fit = own_fit(house, "way", steps="8", halt="4")
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
    assert any("gives way" in event for event in owner.events(fit))


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


def test_what_would_have_to_be_done_again_is_not_stopped(house: House) -> None:
    owner = house.owner
    fit = own_fit(house, "not-kept", steps="12", slice="0.5", phase="noise_floor")
    house.worker(fit_turn_s=0.1)
    owner.wait_until(fit, lambda record: record.job.progress.done >= 1)
    other = owner.submit(do="count", steps="1")
    assert owner.wait(fit).job.attempt == 1
    assert owner.wait(other).job.status is JobStatus.SUCCEEDED


def test_a_piece_that_takes_longer_than_a_cancellation_may_is_done_before_it_makes_way(house: House) -> None:
    """It is asked to stop and not killed: what it had in hand is kept, and its engine with it."""
    owner = house.owner
    fit = own_fit(house, "in-hand", steps="3", slice="4", deaf="", halt="2")  # a late stop finds it there, too
    house.worker(fit_turn_s=0.1, cancel_grace_s=0.2)
    owner.wait_until(fit, lambda record: record.job.progress.done >= 1)
    other = owner.submit(do="count", steps="1")
    assert owner.wait(other).job.status is JobStatus.SUCCEEDED
    go(house.settings, fit)
    record = owner.wait(fit)
    assert (record.job.status, record.tries) == (JobStatus.SUCCEEDED, 1)
    assert record.job.attempt >= 2
    assert steps(house, fit) == [0, 1, 2], "each piece once"
    ours = [line for line in read_trace(house.settings) if line.get("job") in {fit, other}]
    assert len({line["pid"] for line in ours}) == 1, "one child has done it all"


def test_a_fit_that_is_making_way_can_be_cancelled(house: House) -> None:
    owner = house.owner
    fit = own_fit(house, "cancelled", steps="2", slice="60", deaf="")
    kept = scratch_folder(house.settings, fit)
    kept.mkdir(parents=True)
    (kept / "0").write_text("done before")
    house.worker(fit_turn_s=0.1, cancel_grace_s=0.2)
    other = owner.submit(do="count", steps="1")
    wait_for(lambda: any("gives way" in event for event in owner.events(fit)), what="making way")
    owner.cancel(fit)
    assert owner.wait(fit).job.status is JobStatus.CANCELLED
    assert owner.wait(other).job.status is JobStatus.SUCCEEDED


def test_a_child_that_dies_while_it_makes_way_has_failed_as_at_any_other_time(house: House) -> None:
    owner = house.owner
    fit = own_fit(house, "dies", steps="2", slice="600", deaf="")
    kept = scratch_folder(house.settings, fit)
    kept.mkdir(parents=True)
    (kept / "0").write_text("done before")
    house.worker(fit_turn_s=0.1)
    other = owner.submit(do="count", steps="1")
    wait_for(lambda: any("gives way" in event for event in owner.events(fit)), what="making way")
    [begun] = [line for line in read_trace(house.settings) if line["what"] == "begun" and line["job"] == fit]
    os.kill(begun["pid"], signal.SIGKILL)
    record = owner.wait(fit)
    assert record.job.status is JobStatus.FAILED
    assert (record.job.error.code, record.job.attempt) == (ErrorCode.ENGINE_OUT_OF_MEMORY, 1)
    assert owner.wait(other).job.status is JobStatus.SUCCEEDED


def test_a_job_behind_many_fits_of_other_deployments_is_found(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many fits wait before it. One that nobody can run counts for nothing."""
    monkeypatch.setattr("workers.process.yielding.WAITED_S", 0.0)
    monkeypatch.setattr("workers.process.yielding._AT_ONCE", 7)

    async def queued(store: JobStore, deployed: DeploymentStore, name: str) -> str:
        made = (await deployed.create(DeploymentRequest.model_validate({"name": name, **DEPLOYED}))).id
        job_id = new_job_id()
        body = {"kind": "calibrate", "reference": {"model": "a"}, "candidate": {"model": "b"}, "deployment": made}
        await store.create(job_id, requests().validate_python(body))
        await deployed.start_fit(made, job_id)
        return job_id

    async def act() -> None:
        client = connect_patiently(house.settings)
        try:
            store, deployed = JobStore(client, house.settings), DeploymentStore(client, house.settings)
            made = [await queued(store, deployed, f"many-{number}") for number in range(30)]
            assert await waiting(store) is None
            asked = [new_job_id() for _ in range(2)]
            for job_id in asked:
                await store.create(job_id, requests().validate_python(COMPARE))
            assert await waiting(store) == asked[0]
            await client.hset(keys.job(asked[0]), "kind", "of another version")
            await client.hdel(keys.job(asked[0]), "reference")
            assert await waiting(store) == asked[1]
            monkeypatch.setattr("workers.process.yielding.WAITED_S", 600.0)
            assert await waiting(store) is None, "none has waited long enough"
            for job_id in (*made, *asked):
                await store.cancel(job_id)
        finally:
            await client.aclose()

    asyncio.run(act())
