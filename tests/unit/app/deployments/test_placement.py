"""Which process goes to which device: worked out by hand, with exact shares."""

import pytest

from app.contracts.errors import ErrorCode, HemostatError
from app.deployments.placement import Need, Spot, Wanted, check_one_fits, needs, no_room, place
from app.deployments.report import Device, HostReport
from app.settings import Settings

SETTINGS = Settings(share_serving=0.5, share_shadow=0.125, share_verify=0.125, share_diagnosis=0.25)


def host(name, *devices, names=()):
    return HostReport(agent=f"agent of {name}", host=name, devices=[Device(id=one) for one in devices], names=names)


def wanted(name="a", replicas=1, held=None, **more):
    return Wanted(name, needs(SETTINGS, replicas, **more), held or {})


def plan(hosts, *deployments):
    return place(hosts, deployments, reserved=SETTINGS.share_diagnosis)


def where(found, name="a"):
    return {place: f"{spot.host}:{','.join(spot.devices)}" for place, spot in found.spots[name].items()}


def lacking(found):
    return {name: lack.place for name, lack in found.lacking.items()}


def spot(name, *devices):
    return Spot(f"agent of {name}", name, devices)


CASES = {
    "one device holds all": ([host("x", "cpu")], [wanted()], {"serve-0": "x:cpu", "shadow": "x:cpu"}),
    "replicas are spread over devices": (
        [host("x", "0", "1")],
        [wanted(replicas=2)],
        {"serve-0": "x:0", "serve-1": "x:1", "shadow": "x:0"},
    ),
    "and over hosts": (
        [host("x", "cpu"), host("y", "cpu")],
        [wanted(replicas=2)],
        {"serve-0": "x:cpu", "serve-1": "y:cpu", "shadow": "x:cpu"},
    ),
    "the own host's devices come first": (
        [host("x", "0"), host("y", "0", "1")],
        [wanted(replicas=2, held={"serve-0": spot("y", "0")})],
        {"serve-0": "y:0", "serve-1": "y:1", "shadow": "y:0"},
    ),
    "shadow and verify go beside a replica": (
        [host("x", "0", "1")],
        [wanted(verify=True, held={"serve-0": spot("x", "1")})],
        {"serve-0": "x:1", "shadow": "x:1", "verify": "x:1"},
    ),
    "or beside nothing, if it is full there": (
        [host("x", "0", "1")],
        [Wanted("a", {"serve-0": Need(0.75), "shadow": Need(0.125)})],
        {"serve-0": "x:0", "shadow": "x:1"},
    ),
    "a split model takes devices of one host": (
        [host("x", "0"), host("y", "3", "5")],
        [wanted(serving=2)],
        {"serve-0": "y:3,5", "shadow": "y:3"},
    ),
    "a split model has one CPU": ([host("x", "cpu")], [wanted(serving=2)], {"serve-0": "x:cpu", "shadow": "x:cpu"}),
    "what a silent agent held moves": (
        [host("y", "0")],
        [wanted(held={"serve-0": spot("x", "0"), "shadow": spot("y", "0")})],
        {"serve-0": "y:0", "shadow": "y:0"},
    ),
    "an agent runs the deployments that it names": (
        [host("x", "0", names=("b",)), host("y", "0")],
        [wanted()],
        {"serve-0": "y:0", "shadow": "y:0"},
    ),
}


def sized(name, *gigabytes):
    devices = [Device(id=str(number), bytes=size * 10**9) for number, size in enumerate(gigabytes)]
    return host(name).model_copy(update={"devices": devices})


SMALL = Wanted("a", {"serve-0": Need(0.125)})
# Free beside the worker: 0.75 of the device; a replica takes 0.5, a shadow 0.125.
BYTES = {
    "the larger device goes first": ([sized("x", 24, 80)], [wanted()], ["x:1"]),
    "also on another host": ([sized("x", 24), sized("y", 80)], [wanted()], ["y:0"]),
    "replicas are spread all the same": ([sized("x", 24, 80)], [wanted(replicas=2)], ["x:1", "x:0"]),
    # 0.125 of 100 GB are less than 0.75 of 24 GB, and 0.125 of 160 GB are more.
    "free bytes count, not all": ([sized("x", 100, 24)], [wanted("b"), SMALL], ["x:1"]),
    "nor the free share": ([sized("x", 160, 24)], [wanted("b"), SMALL], ["x:0"]),
    "a split model takes the two largest": ([sized("x", 24, 80, 40)], [wanted(serving=2)], ["x:1,2"]),
    "of a split model the smaller device decides": (
        [sized("x", 24, 141), sized("y", 48, 48)],
        [wanted(serving=2)],
        ["y:0,1"],
    ),
    "bytes that are not known are least": ([sized("x", 0, 24)], [wanted()], ["x:1"]),
}


@pytest.mark.parametrize("case", BYTES)
def test_devices_count_by_the_bytes_that_are_free(case):
    hosts, deployments, expected = BYTES[case]
    found = where(plan(hosts, *deployments))
    assert [found[place] for place in sorted(found) if place != "shadow"] == expected


@pytest.mark.parametrize("case", CASES)
def test_each_process_has_its_device(case):
    hosts, deployments, expected = CASES[case]
    found = plan(hosts, *deployments)
    assert where(found) == expected
    assert found.lacking == {}


def test_what_is_held_beyond_the_share_moves():
    found = plan([host("x", "0", "1")], wanted(replicas=2, held={f"serve-{n}": spot("x", "0") for n in range(2)}))
    assert where(found) == {"serve-0": "x:0", "serve-1": "x:1", "shadow": "x:0"}


def test_three_deployments_fit_on_three_devices_and_not_on_one():
    three = [wanted(name) for name in "abc"]
    apart = plan([host("x", "0", "1"), host("y", "0")], *three)
    assert {name: where(apart, name)["serve-0"] for name in "abc"} == {"a": "x:0", "b": "x:1", "c": "y:0"}
    assert set(apart.free.values()) == {1 - 0.25 - 0.5 - 0.125}
    together = plan([host("x", "cpu")], *three)
    assert lacking(together) == {"b": "serve-0", "c": "serve-0"}
    assert set(where(together)) == {"serve-0", "shadow"}


def test_a_deployment_is_placed_whole_or_not_at_all_and_what_runs_stays():
    alone = [host("x", "0")]
    new = plan(alone, wanted(replicas=2))
    assert (new.spots["a"], lacking(new), new.free["x", "0"]) == ({}, {"a": "serve-1"}, 0.75)
    assert new.lacking["a"].free["x", "0"] == 0.25, "beside serve-0"
    left = plan(alone, wanted(replicas=3, held={"serve-1": spot("x", "0"), "serve-2": spot("y", "0")}))
    assert (where(left), lacking(left)) == ({"serve-1": "x:0"}, {"a": "serve-0"})


def test_what_runs_goes_before_what_is_older_and_does_not():
    found = plan([host("x", "0")], wanted("old"), wanted("new", held={"serve-0": spot("x", "0")}))
    assert lacking(found) == {"old": "serve-0"}
    assert set(where(found, "new")) == {"serve-0", "shadow"}


def test_agents_of_one_host_share_its_devices():
    first, second = host("x", "cpu"), host("x", "cpu").model_copy(update={"agent": "second"})
    found = plan([first, second], wanted("a"), wanted("b"))
    assert lacking(found) == {"b": "serve-0"}


def test_where_no_agent_runs_it_nothing_lacks_room():
    found = plan([host("x", "0", names=("b",))], wanted())
    assert (found.spots["a"], found.lacking) == ({}, {})


def test_a_host_that_the_gateway_does_not_reach_gets_nothing_and_gives_up_what_it_has():
    far, near = host("x", "0").model_copy(update={"reached": False}), host("y", "0")
    held = wanted(held={"serve-0": spot("x", "0"), "shadow": spot("x", "0")})
    assert where(plan([far, near], held)) == {"serve-0": "y:0", "shadow": "y:0"}
    alone = plan([far], held)
    assert (alone.spots["a"], lacking(alone)) == ({}, {"a": "serve-0"})
    assert "x: none, the gateway is on another host" in no_room(alone, "a", needs(SETTINGS, 1)).detail
    assert "y: 0 0.12" in no_room(plan([far, near], held, wanted("b")), "b", needs(SETTINGS, 1)).detail


def test_of_two_agents_of_a_host_the_one_with_a_name_for_others_starts_processes():
    far = host("x", "0").model_copy(update={"reached": False})
    named = far.model_copy(update={"agent": "named", "reached": True})
    found = plan([far, named], wanted())
    assert {one.agent for one in found.spots["a"].values()} == {"named"}


def test_the_refusal_names_each_device_with_what_is_free():
    found = plan([host("x", "0", "1"), host("y", "0")], wanted("a", 3), wanted("b", serving=2))
    error = no_room(found, "b", needs(SETTINGS, 1, serving=2), pointer="/replicas")
    assert (error.code, error.pointer) == (ErrorCode.DEPLOYMENT_CONFLICT, "/replicas")
    assert "serve-0 of b" in error.detail
    assert "0.5 on each of 2 devices" in error.detail
    assert "x: 0 0.12, 1 0.25; y: 0 0.25" in error.detail


def test_a_host_that_holds_not_even_one_deployment_is_refused():
    check_one_fits(SETTINGS, host("x", "cpu"))
    with pytest.raises(HemostatError, match="serve-0") as caught:
        check_one_fits(SETTINGS.model_copy(update={"share_serving": 0.9}), host("x", "cpu"))
    assert "HEMOSTAT_SHARE_SERVING" in caught.value.hint
