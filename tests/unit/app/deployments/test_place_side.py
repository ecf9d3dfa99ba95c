"""Whose memory is shared with deployments: devices by number on one host, by machine between its containers."""

import pytest

from app.deployments.place_side import shares_devices
from app.deployments.placement import Plan, Spot
from app.deployments.report import AgentReport, Device, HostReport


def host(name: str, machine: str, *devices: str) -> HostReport:
    return HostReport(agent=f"agent of {name}", host=name, machine=machine, devices=[Device(id=one) for one in devices])


SERVES = host("serve", "m", "0", "1")


@pytest.mark.parametrize(
    ("here", "shared"),
    [
        (host("serve", "m", "1"), True),
        (host("serve", "m", "0"), False),
        (host("serve", "", "1"), True),
        (host("worker", "m", "0"), True),  # the number of the agent's device in this container is not known
        (host("worker", "other", "1"), False),
        (host("worker", "", "1"), False),
    ],
)
def test_a_device_is_shared_if_a_process_is_or_is_to_be_there(here: HostReport, shared: bool) -> None:
    to_be = Plan([SERVES], {}, spots={"a": {"serve-0": Spot(SERVES.agent, SERVES.host, ("1",))}})
    held = {"dep": [AgentReport(agent=SERVES.agent, host=SERVES.host, places={"shadow": ("1",)})]}
    assert shares_devices(here, [SERVES], to_be, {}) is shared
    assert shares_devices(here, [SERVES], Plan([SERVES], {}), held) is shared
    assert not shares_devices(here, [SERVES], Plan([SERVES], {}), {"dep": []})
