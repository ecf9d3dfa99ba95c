import pytest

from app.contracts.deployment import (
    Deployment,
    DeploymentEventType,
    DeploymentPatch,
    DeploymentState,
)
from app.contracts.errors import ErrorCode
from app.deployments.store import DeploymentStore
from tests.integration.app.deployments.asking import AUTO, FIRST, FROZEN, OFF, SECOND, refused, told
from tests.integration.app.deployments.conftest import replica, request


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


async def test_calibration_that_is_off_serves_identity_a_while(deployments: DeploymentStore, made: Deployment) -> None:
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


async def test_one_made_with_calibration_off_begins_with_the_version_asked_for(deployments: DeploymentStore) -> None:
    made = await deployments.create(request(calibration="off", version=FIRST))
    assert (made.active_version, made.previous_version) == ("identity", FIRST)
    on = await deployments.patch(made.id, AUTO)
    assert (on.active_version, on.previous_version, on.fit_reason) == (FIRST, None, "")
