import asyncio

from app.contracts.deployment import (
    Deployment,
)
from app.deployments.fit import wants_fit
from app.deployments.store import DeploymentStore
from tests.integration.app.deployments.asking import AUTO, OFF, told


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


async def test_one_job_fits_a_deployment(deployments: DeploymentStore, made: Deployment) -> None:
    winners = await asyncio.gather(*(deployments.start_fit(made.id, f"diag_{number}") for number in range(5)))
    assert len(set(winners)) == 1
    for _ in range(2):
        await deployments.fit_ended(made.id, refused=True, reason="no domain gained", evidence={"domains": 3})
    after = await deployments.get(made.id)
    assert (after.fit_job, after.fit_reason) == (winners[0], "no domain gained")
    kinds = [event.type.value for event in await told(deployments, made)]
    assert kinds == ["created", "fit_started", "refused"]
