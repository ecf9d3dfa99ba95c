import asyncio
from types import SimpleNamespace
from typing import Any, Final

import pytest

from app.contracts.deployment import Deployment
from app.contracts.errors import ErrorCode, HemostatError
from app.deployments.fit import ensure_fit, wants_fit
from app.deployments.store import DeploymentStore
from app.jobs.store import JobStore
from tests.integration.app.deployments.asking import AUTO, FIRST, OFF, SECOND, told

NO_QUEUE: Final[Any] = None  # no job is submitted


async def test_why_nothing_was_proven_is_told_again_when_calibration_comes_back(
    deployments: DeploymentStore, made: Deployment
) -> None:
    await deployments.start_fit(made.id, "diag_1")
    await deployments.fit_ended(made.id, refused=True, reason="no domain gained", evidence={})
    assert (await deployments.patch(made.id, OFF)).fit_reason == "calibration is off"
    assert (await deployments.patch(made.id, AUTO)).fit_reason == "no domain gained"
    await deployments.patch(made.id, OFF)
    await deployments.fit_ended(made.id, refused=True, reason="nor in another job", evidence={})
    assert (await deployments.get(made.id)).fit_reason == "calibration is off"
    again = await deployments.patch(made.id, AUTO)
    assert again.fit_reason == "nor in another job"
    assert not wants_fit(again)


async def test_a_proven_profile_does_not_overrule_what_a_person_promoted_while_it_was_looked_for(
    deployments: DeploymentStore, store: JobStore, made: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`made` is what the fit has read; the person is faster than the look at the stored profiles."""
    monkeypatch.setattr("app.deployments.fit.proven", lambda *_: SimpleNamespace(version=SECOND))
    await deployments.promote(made.id, FIRST, reason="by hand", manual=True)
    with pytest.raises(HemostatError) as caught:
        await ensure_fit(deployments, store, NO_QUEUE, made)
    assert caught.value.code is ErrorCode.DEPLOYMENT_CONFLICT
    after = await deployments.get(made.id)
    assert (after.active_version, after.fit_job) == (FIRST, None)
    assert await ensure_fit(deployments, store, NO_QUEUE, after) == after, "and none is wanted"


async def test_one_job_fits_a_deployment(deployments: DeploymentStore, made: Deployment) -> None:
    winners = await asyncio.gather(*(deployments.start_fit(made.id, f"diag_{number}") for number in range(5)))
    assert len(set(winners)) == 1
    for _ in range(2):
        await deployments.fit_ended(made.id, refused=True, reason="no domain gained", evidence={"domains": 3})
    after = await deployments.get(made.id)
    assert (after.fit_job, after.fit_reason) == (winners[0], "no domain gained")
    kinds = [event.type.value for event in await told(deployments, made)]
    assert kinds == ["created", "fit_started", "refused"]
