import asyncio
from contextlib import ExitStack

import pytest

from app.address import loopback
from app.contracts.deployment import CalibrationMode, Deployment, DeploymentState, Replica
from app.gateway.errors import ApiError
from app.gateway.replicas import FullError, Replicas, own_version, serving_replicas

A, B = "cal-000000000000000a", "cal-000000000000000b"


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def replica(name, **fields):
    return Replica(id=name, **({"state": DeploymentState.READY, "url": f"http://127.0.0.1:80/{''}"} | fields))


def deployment(*running, **fields):
    return Deployment.model_validate(
        {
            "id": "dep_1",
            "name": "m",
            "model": {"model": "x"},
            "reference": {"model": "x"},
            "calibration": "auto",
            "shadow_rate": 0,
            "shadow_tokens_per_second": 0,
            "drift_threshold": None,
            "alpha": 0.01,
            "replicas": 1,
            "max_model_len": None,
            "state": "ready",
            "running": running,
            "created_at": 0,
            "updated_at": 0,
        }
        | fields
    )


def chosen(replicas, served, pinned=None, *tried):
    choice = replicas.choose(served, pinned, frozenset(tried))
    return None if choice is None else choice.replica.id


def test_the_least_busy_one_is_taken():
    replicas = Replicas(clock=Clock())
    served = deployment(replica("a"), replica("b"), replica("c"))
    with replicas.busy(served.running[0]), replicas.busy(served.running[1]):
        assert chosen(replicas, served) == "c"
        with replicas.busy(served.running[2]), replicas.busy(served.running[2]):
            assert chosen(replicas, served) == "a"
    assert chosen(replicas, served) == "a"
    assert chosen(replicas, served, None, "a", "b") == "c"
    assert chosen(replicas, served, None, "a", "b", "c") is None


def test_a_loopback_address_of_another_host_is_not_called():
    """It would lead to whatever listens on this host."""
    here = replica("a", loopback=loopback())
    for url in ("http://127.0.0.1:80", "http://localhost:80/", "http://[::1]:80"):
        there = replica("b", loopback="elsewhere", url=url)
        assert serving_replicas(deployment(here, there)) == [here]
        with pytest.raises(ApiError, match="another host") as caught:
            Replicas().choose(deployment(there), None)
        assert "HEMOSTAT_ADVERTISE_HOST" in caught.value.hint
    named = replica("b", host="elsewhere", url="http://gpu-2:80")
    assert serving_replicas(deployment(here, named)) == [here, named]


def test_one_that_failed_is_left_alone_for_a_while_unless_it_is_the_only_one():
    clock = Clock()
    replicas = Replicas(clock=clock)
    served = deployment(replica("a"), replica("b"))
    replicas.failed(served.running[0])
    with replicas.busy(served.running[1]):
        assert chosen(replicas, served) == "b"
        clock.now = 3
        assert chosen(replicas, served) == "a"
    replicas.failed(served.running[0])
    assert chosen(replicas, deployment(replica("a"))) == "a"


def test_a_replica_gets_no_more_requests_than_it_takes():
    replicas = Replicas(clock=Clock())
    served = deployment(replica("a", versions=("identity", A)), replica("b"))
    first, second = served.running
    with ExitStack() as held:
        for _ in range(2):
            held.enter_context(replicas.busy(first))
        choice = replicas.choose(served, None, most=2)
        assert choice is not None
        assert choice.replica.id == "b"
        with pytest.raises(FullError):
            replicas.choose(served, A, most=2)  # the version is at the first one alone
        assert chosen(replicas, served, A) == "a", "a question that is answered at once is not held up"
        replicas.failed(second)
        with pytest.raises(FullError):
            replicas.choose(served, None, most=2)  # one that failed is no way out
    assert chosen(replicas, served) == "a"


async def test_who_waits_for_room_is_told_of_each_request_that_ends():
    replicas = Replicas()
    served = replica("a")
    for _ in range(2):
        with replicas.busy(served):
            waiting = [asyncio.create_task(replicas.freed()) for _ in range(3)]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not any(task.done() for task in waiting)
        async with asyncio.timeout(60):
            await asyncio.gather(*waiting)


def test_requests_at_a_replica_are_counted_while_they_run_and_not_after():
    replicas, at = Replicas(clock=Clock()), replica("a")
    with replicas.busy(at):
        with replicas.busy(at):
            assert replicas.in_flight(at) == 2
        assert replicas.in_flight(at) == 1
    assert replicas.in_flight(at) == 0


def test_only_what_serves_is_asked():
    states = {state.value: replica(state.value, state=state) for state in DeploymentState}
    shadow, verify = replica("s", role="shadow"), replica("v", role="verify")
    served = deployment(*states.values(), shadow, verify, replica("nowhere", url=""), replica("odd", url="file:///x"))
    assert [found.id for found in serving_replicas(served)] == ["ready", "degraded"]
    replicas = Replicas(clock=Clock())
    with replicas.busy(states["ready"]):
        assert chosen(replicas, served) == "ready", "a degraded one only where there is no other"
    assert chosen(replicas, served, None, "ready") == "degraded"


def test_the_reason_tells_no_path_of_the_machine():
    log = 'm/serve-0 ended 3 times: File "/srv/secret/serve.py", line 3, in load\n  open("/srv/secret/weights/a.bin")'
    with pytest.raises(ApiError) as caught:
        Replicas().choose(deployment(reason=log), None)
    assert "ended 3 times" in caught.value.detail
    assert "secret" not in caught.value.detail


def test_the_version_is_one_that_the_replica_has():
    fresh, old, bare = replica("f", versions=("identity", A, B)), replica("o", versions=("identity", A)), replica("b")
    served = deployment(fresh, old, bare, active_version=B, previous_version=A)
    assert [own_version(served, found) for found in served.running] == [B, A, "identity"]
    first = served.model_copy(update={"previous_version": None})
    assert own_version(first, old) == "identity"
    off = served.model_copy(update={"calibration": CalibrationMode.OFF})
    assert own_version(off, fresh) == "identity"


def test_a_version_that_is_asked_for_is_had_or_refused():
    served = deployment(replica("a", versions=("identity", A)), replica("b", versions=("identity", B)))
    replicas = Replicas(clock=Clock())
    assert chosen(replicas, served, B) == "b"
    assert chosen(replicas, served, "identity") == "a"
    choice = replicas.choose(served, A)
    assert choice is not None
    assert choice.version == A
    assert chosen(replicas, served, A, "a") is None
    with pytest.raises(ApiError) as caught:
        chosen(replicas, served, "cal-00000000000000ff")
    assert (caught.value.status, caught.value.param) == (400, "hemostat.calibration")
    assert A in caught.value.hint
