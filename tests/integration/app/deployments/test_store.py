import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from app.contracts.deployment import (
    CalibrationMode,
    Deployment,
    DeploymentEvent,
    DeploymentEventType,
    DeploymentPatch,
    DeploymentState,
    DriftState,
    ShadowSample,
    ShadowStatus,
)
from app.contracts.errors import ErrorCode, HemostatError
from app.deployments.fit import wants_fit
from app.deployments.report import AgentReport
from app.deployments.store import DeploymentStore
from app.settings import Settings
from tests.integration.app.deployments.conftest import replica, request

FIRST, SECOND = "cal-" + "1" * 16, "cal-" + "2" * 16


async def told(store: DeploymentStore, deployment: Deployment) -> list[DeploymentEvent]:
    return [event for _, event in await store.events(deployment.id)]


async def states(store: DeploymentStore, deployment: Deployment) -> list[Any]:
    events = await told(store, deployment)
    return [event.evidence["state"] for event in events if event.type is DeploymentEventType.STATE]


async def refused(awaitable: Awaitable[Any]) -> HemostatError:
    with pytest.raises(HemostatError) as caught:
        await awaitable
    return caught.value


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(90):
        while not await condition():  # noqa: ASYNC110 - it is Redis that changes
            await asyncio.sleep(0.02)


async def waited_for(ask: Callable[[], Awaitable[list[Any]]]) -> list[Any]:
    """The first answer with something in it. Each of these few questions has to wait, or all of them are too early."""
    for _ in range(5):
        if found := await ask():
            return found
    return []


def sample(number: int) -> ShadowSample:
    return ShadowSample(id=f"r{number}", prompt=(1, 2), output=(3,), version="identity", at=0.0)


async def test_what_was_asked_for_is_read_back_by_name_and_by_id(deployments: DeploymentStore) -> None:
    asked = request(shadow_rate=0.25, drift_threshold=None, metadata={"team": "Ω"}, replicas=2)
    made = await deployments.create(asked)
    for key in (made.id, "tiny-rtn4"):
        found = await deployments.get(key)
        assert found == made
    same = made.model_dump(include=set(type(asked).model_fields) - {"version"})
    assert same == asked.model_dump(exclude={"version"})
    assert (made.state, made.active_version) == (DeploymentState.STARTING, "identity")
    assert await deployments.list() == [made]


async def test_a_name_is_given_once(deployments: DeploymentStore, made: Deployment) -> None:
    error = await refused(deployments.create(request()))
    assert (error.code, error.pointer) == (ErrorCode.DEPLOYMENT_EXISTS, "/name")
    assert await deployments.list() == [made]


async def test_an_unknown_name_is_answered_with_the_nearest(deployments: DeploymentStore, made: Deployment) -> None:
    error = await refused(deployments.get("tiny-rtn5"))
    assert error.code is ErrorCode.DEPLOYMENT_NOT_FOUND
    assert "tiny-rtn4" in error.hint


async def test_a_change_is_one_event_and_no_change_is_none(deployments: DeploymentStore, made: Deployment) -> None:
    patch = DeploymentPatch(shadow_rate=0.5, replicas=3)
    changed = await deployments.patch(made.id, patch)
    assert (changed.shadow_rate, changed.replicas, changed.alpha) == (0.5, 3, made.alpha)
    await deployments.patch(made.id, patch)
    events = await told(deployments, made)
    assert [event.type for event in events] == [DeploymentEventType.CREATED, DeploymentEventType.CHANGED]
    assert events[1].evidence == {"shadow_rate": 0.5, "replicas": 3}


async def test_what_this_store_changes_is_counted_so_that_a_list_from_before_is_known_as_such(
    deployments: DeploymentStore, made: Deployment
) -> None:
    seen = [deployments.changes]
    await deployments.register(made.id, replica(0))
    await deployments.list()
    assert deployments.changes == seen[0], "replicas come and go by themselves"
    await deployments.patch(made.id, DeploymentPatch(shadow_rate=0.5))
    seen.append(deployments.changes)
    await deployments.promote(made.id, FIRST, reason="better")
    seen.append(deployments.changes)
    await deployments.rollback(made.id, reason="worse")
    seen.append(deployments.changes)
    await deployments.delete(made.id)
    seen.append(deployments.changes)
    assert seen == sorted(set(seen)), "more after each"


async def test_a_threshold_can_be_taken_back(deployments: DeploymentStore) -> None:
    made = await deployments.create(request(drift_threshold=0.5))
    assert (await deployments.patch(made.id, DeploymentPatch(alpha=0.1))).drift_threshold == 0.5
    assert (await deployments.patch(made.id, DeploymentPatch(drift_threshold=None))).drift_threshold is None


async def test_promotion_and_rollback(deployments: DeploymentStore, made: Deployment) -> None:
    await deployments.promote(made.id, FIRST, reason="it is better", evidence={"saved": 0.1})
    second = await deployments.promote(made.id, SECOND, reason="better still")
    assert (second.active_version, second.previous_version, second.promotions) == (SECOND, FIRST, 2)
    back = await deployments.rollback(made.id, reason="worse")
    assert (back.active_version, back.previous_version, back.rollbacks) == (FIRST, None, 1)
    assert (await deployments.rollback(made.id, reason="worse")).active_version == "identity"
    again = await deployments.rollback(made.id, reason="nowhere to go")
    assert (again.active_version, again.rollbacks) == ("identity", 2)
    events = await told(deployments, made)
    assert [(event.type.value, event.version, event.previous) for event in events[1:]] == [
        ("promoted", FIRST, "identity"),
        ("promoted", SECOND, FIRST),
        ("rolled_back", FIRST, SECOND),
        ("rolled_back", "identity", FIRST),
    ]
    assert (events[1].reason, events[1].evidence) == ("it is better", {"saved": 0.1})


async def test_a_decision_about_a_version_does_not_undo_what_came_into_force_meanwhile(
    deployments: DeploymentStore, made: Deployment
) -> None:
    await deployments.promote(made.id, FIRST, reason="by hand", manual=True)
    late = await refused(deployments.promote(made.id, SECOND, reason="better", instead_of="identity"))
    assert late.code is ErrorCode.DEPLOYMENT_CONFLICT
    assert "Another version" in late.detail
    late = await refused(deployments.rollback(made.id, reason="worse", to="identity", instead_of=SECOND))
    assert late.code is ErrorCode.DEPLOYMENT_CONFLICT
    assert (await deployments.get(made.id)).active_version == FIRST
    same = await deployments.promote(made.id, FIRST, reason="better", instead_of="identity")
    assert (same.active_version, same.promotions) == (FIRST, 1)
    assert (await deployments.promote(made.id, SECOND, reason="better", instead_of=FIRST)).active_version == SECOND


async def test_promoting_what_is_active_changes_nothing(deployments: DeploymentStore, made: Deployment) -> None:
    once = await deployments.promote(made.id, FIRST, reason="a")
    assert await deployments.promote(made.id, FIRST, reason="b") == once


async def test_frozen_refuses_the_service_and_obeys_a_person(deployments: DeploymentStore, made: Deployment) -> None:
    await deployments.freeze(made.id)
    error = await refused(deployments.promote(made.id, FIRST, reason="better"))
    assert error.code is ErrorCode.DEPLOYMENT_CONFLICT
    assert (await deployments.promote(made.id, FIRST, reason="asked", manual=True)).active_version == FIRST
    assert (await refused(deployments.rollback(made.id, reason="worse"))).code is ErrorCode.DEPLOYMENT_CONFLICT
    assert (await told(deployments, made))[1].type is DeploymentEventType.FROZEN


OFF, AUTO, FROZEN = (
    DeploymentPatch(calibration=mode) for mode in (CalibrationMode.OFF, CalibrationMode.AUTO, CalibrationMode.FROZEN)
)


async def test_calibration_that_is_off_serves_identity_and_comes_back(
    deployments: DeploymentStore, made: Deployment
) -> None:
    await deployments.promote(made.id, FIRST, reason="better")
    off = await deployments.patch(made.id, OFF)
    assert (off.active_version, off.previous_version) == ("identity", FIRST)
    error = await refused(deployments.promote(made.id, SECOND, reason="asked", manual=True))
    assert error.code is ErrorCode.DEPLOYMENT_CONFLICT
    back = await deployments.patch(made.id, AUTO)
    assert (back.active_version, back.previous_version) == (FIRST, "identity")


@pytest.mark.parametrize("mode", [AUTO, FROZEN])
@pytest.mark.parametrize(
    ("promoted", "back"),
    [
        ((), False),
        ((FIRST,), False),
        ((FIRST, SECOND), False),
        ((FIRST, "identity"), False),  # by a person, who would not have the first one again
        ((FIRST, SECOND), True),
        ((FIRST,), True),
    ],
)
async def test_what_comes_back_is_what_was_there_with_the_version_to_go_back_to(
    deployments: DeploymentStore, made: Deployment, promoted: tuple[str, ...], back: bool, mode: DeploymentPatch
) -> None:
    for version in promoted:
        await deployments.promote(made.id, version, reason="asked", manual=True)
    if back:
        await deployments.rollback(made.id, reason="worse")
    before = await deployments.get(made.id)
    for _ in range(2):
        off = await deployments.patch(made.id, OFF)
        assert off.active_version == "identity"
        await deployments.rollback(made.id, reason="asked", to="identity", manual=True)
        after = await deployments.patch(made.id, mode)
        assert (after.active_version, after.previous_version) == (before.active_version, before.previous_version)
        assert after.fit_reason == before.fit_reason


async def test_one_made_with_calibration_off_begins_with_the_version_that_was_asked_for(
    deployments: DeploymentStore,
) -> None:
    made = await deployments.create(request(calibration="off", version=FIRST))
    assert (made.active_version, made.previous_version) == ("identity", FIRST)
    on = await deployments.patch(made.id, AUTO)
    assert (on.active_version, on.previous_version, on.fit_reason) == (FIRST, None, "")


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


async def test_the_state_follows_the_replicas(deployments: DeploymentStore, made: Deployment) -> None:
    await deployments.patch(made.id, DeploymentPatch(replicas=2))
    await deployments.register(made.id, replica(0, state="starting", reason="loading weights"))
    starting = await deployments.get(made.id)
    assert (starting.state, "loading weights" in starting.reason) == (DeploymentState.STARTING, True)
    await deployments.renew(made.id, replica(0))
    await deployments.renew(made.id, replica(0))
    assert (
        await deployments.get(made.id)
    ).reason == "1 of 2 replicas are ready: no agent runs it yet; `hemostat serve` does"
    await deployments.register(made.id, replica(1))
    ready = await deployments.get(made.id)
    assert (ready.state, ready.reason) == (DeploymentState.READY, "")
    assert [(one.id, one.state.value) for one in ready.running] == [("serve-0", "ready"), ("serve-1", "ready")]
    await deployments.leave(made.id, "serve-1")
    await deployments.leave(made.id, "serve-0")
    assert (await deployments.get(made.id)).state is DeploymentState.DEGRADED
    assert await states(deployments, made) == ["degraded", "ready", "degraded"]


async def test_a_replica_that_falls_silent_is_gone(
    client: Redis, deployments: DeploymentStore, lease_settings: Settings, made: Deployment
) -> None:
    brief = DeploymentStore(client, lease_settings.model_copy(update={"replica_lease_s": 0.2}))
    await brief.register(made.id, replica())
    assert (await brief.get(made.id)).state is DeploymentState.READY

    async def noticed() -> bool:
        return await deployments.settle(made.id) is DeploymentState.DEGRADED

    await until(noticed)
    assert await deployments.replicas(made.id) == []
    assert [event.type.value for event in await told(deployments, made)][-2:] == ["replica", "state"]
    await brief.renew(made.id, replica())
    assert (await brief.get(made.id)).state is DeploymentState.READY


async def test_a_change_that_many_notice_is_told_once(
    client: Redis, deployments: DeploymentStore, lease_settings: Settings, made: Deployment
) -> None:
    brief = DeploymentStore(client, lease_settings.model_copy(update={"replica_lease_s": 0.2}))
    await brief.register(made.id, replica())
    stores = [DeploymentStore(client, lease_settings) for _ in range(8)]

    async def noticed() -> bool:
        await asyncio.gather(*(store.settle(made.id) for store in stores))
        return (await deployments.get(made.id)).state is DeploymentState.DEGRADED

    await until(noticed)
    assert await states(deployments, made) == ["ready", "degraded"]


async def test_what_the_agent_says_is_the_reason(deployments: DeploymentStore, made: Deployment) -> None:
    await deployments.report(made.id, AgentReport(processes=1, fault="serve-0 ended twice: no weights"))
    assert (await deployments.get(made.id)).state is DeploymentState.STARTING
    await deployments.report(made.id, AgentReport(fault="serve-0 ended 5 times: no weights", failed=True))
    failed = await deployments.get(made.id)
    assert (failed.state, failed.reason) == (DeploymentState.FAILED, "serve-0 ended 5 times: no weights")
    await deployments.register(made.id, replica())
    await deployments.report(made.id, AgentReport(processes=1))
    assert (await deployments.get(made.id)).state is DeploymentState.READY


async def test_a_deleted_deployment_is_forgotten_when_its_processes_are_gone(
    client: Redis, deployments: DeploymentStore, made: Deployment
) -> None:
    await deployments.report(made.id, AgentReport(processes=1))
    await deployments.register(made.id, replica())
    await deployments.push_sample(made.id, sample(1))
    await deployments.delete(made.id)
    await deployments.delete(made.id)
    assert (await deployments.get(made.id)).state is DeploymentState.DRAINING
    for change in (
        deployments.patch(made.id, DeploymentPatch(replicas=2)),
        deployments.promote(made.id, FIRST, reason="asked", manual=True),
    ):
        assert (await refused(change)).code is ErrorCode.DEPLOYMENT_CONFLICT
    await deployments.leave(made.id, "serve-0")
    assert await deployments.report(made.id, AgentReport(processes=0)) == "forgotten"
    assert (await refused(deployments.get(made.id))).code is ErrorCode.DEPLOYMENT_NOT_FOUND
    assert (await refused(deployments.renew(made.id, replica()))).code is ErrorCode.DEPLOYMENT_NOT_FOUND
    assert [event.type.value for event in await told(deployments, made)][-1] == "deleted"
    left = [key async for key in client.scan_iter("hemostat-deployments:*") if await client.ttl(key) < 0]
    assert left == []
    assert (await deployments.create(request())).id != made.id


async def test_a_deployment_that_nobody_runs_is_forgotten_at_once(
    deployments: DeploymentStore, made: Deployment
) -> None:
    await deployments.delete(made.id)
    assert await deployments.list() == []


async def test_one_job_fits_a_deployment(deployments: DeploymentStore, made: Deployment) -> None:
    winners = await asyncio.gather(*(deployments.start_fit(made.id, f"diag_{number}") for number in range(5)))
    assert len(set(winners)) == 1
    for _ in range(2):
        await deployments.fit_ended(made.id, refused=True, reason="no domain gained", evidence={"domains": 3})
    after = await deployments.get(made.id)
    assert (after.fit_job, after.fit_reason) == (winners[0], "no domain gained")
    kinds = [event.type.value for event in await told(deployments, made)]
    assert kinds == ["created", "fit_started", "refused"]


async def test_events_are_numbered_and_waited_for(deployments: DeploymentStore, made: Deployment) -> None:
    async def later() -> None:
        await asyncio.sleep(0.05)
        alarm = DeploymentEvent(type=DeploymentEventType.ALARM, at=0.0, reason="above", evidence={"e_value": 120.5})
        await deployments.event(made.id, alarm)

    task = asyncio.create_task(later())
    found = await waited_for(lambda: deployments.events(made.id, 1, 2.0))
    await task
    assert [(number, event.type.value, event.evidence) for number, event in found] == [(2, "alarm", {"e_value": 120.5})]
    assert found[0][1].at > made.created_at
    assert await deployments.last_event(made.id) == 2


async def test_samples_come_out_in_order_up_to_the_bound(deployments: DeploymentStore, made: Deployment) -> None:
    pushed = [await deployments.push_sample(made.id, sample(number)) for number in range(5)]
    assert pushed == [True, True, True, False, False]
    assert await deployments.queue_depth(made.id) == 3
    assert await deployments.pop_samples(made.id, 2) == [sample(0), sample(1)]
    assert await deployments.pop_samples(made.id, 10) == [sample(2)]
    assert await deployments.pop_samples(made.id, 10, 0.02) == []


async def test_a_sample_is_waited_for(deployments: DeploymentStore, made: Deployment) -> None:
    async def later() -> None:
        await asyncio.sleep(0.05)
        await deployments.push_sample(made.id, sample(7))

    task = asyncio.create_task(later())
    assert await waited_for(lambda: deployments.pop_samples(made.id, 4, 2.0)) == [sample(7)]
    await task


async def test_token_ids_expire(
    client: Redis, deployments: DeploymentStore, lease_settings: Settings, made: Deployment
) -> None:
    brief = DeploymentStore(client, lease_settings.model_copy(update={"shadow_expiry_s": 0.5}))
    for number in range(3):
        await brief.push_sample(made.id, sample(number))

    async def expired() -> bool:
        return await deployments.queue_depth(made.id) == 0

    await until(expired)
    assert [key async for key in client.scan_iter("hemostat-deployments:sample:*")] == []
    assert await deployments.push_sample(made.id, sample(9))


async def test_what_the_shadow_found_is_shown(deployments: DeploymentStore, made: Deployment) -> None:
    status = ShadowStatus(drift=DriftState.OK, e_value=3.5, trial=SECOND)
    await deployments.register(made.id, replica(role="shadow"))
    await deployments.set_shadow(made.id, status)
    assert (await deployments.get(made.id)).shadow == status


async def test_what_a_shadow_process_found_that_is_gone_is_no_news(
    deployments: DeploymentStore, made: Deployment
) -> None:
    await deployments.register(made.id, replica(role="shadow"))
    await deployments.set_shadow(made.id, ShadowStatus(drift=DriftState.OK, e_value=3.5))
    await deployments.leave(made.id, replica().id)
    left = (await deployments.get(made.id)).shadow
    assert left is not None
    assert (left.drift, left.e_value) == (DriftState.STALE, 3.5)
    assert "no shadow process" in left.reason


async def test_a_shadow_process_that_outlives_its_deployment_leaves_nothing(
    deployments: DeploymentStore, client: Redis, made: Deployment
) -> None:
    await deployments.delete(made.id)
    error = await refused(deployments.set_shadow(made.id, ShadowStatus()))
    assert error.code is ErrorCode.DEPLOYMENT_NOT_FOUND
    assert [key async for key in client.scan_iter("hemostat-deployments:shadow:*")] == []
