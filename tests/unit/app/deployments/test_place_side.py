"""Whose memory is shared with deployments."""

import pytest

from app.deployments.place_side import has_agent
from app.deployments.report import Device, HostReport


def host(name: str, machine: str) -> HostReport:
    return HostReport(agent=f"agent of {name}", host=name, machine=machine, devices=(Device(id="0"),))


SERVES = host("serve", "m")


@pytest.mark.parametrize(
    ("here", "shared"),
    [
        (SERVES, True),
        (host("serve", ""), True),
        (host("another container", "m"), True),
        (host("elsewhere", "other"), False),
        (host("elsewhere", ""), True),  # it may be the same machine
    ],
)
def test_an_agent_on_the_machine_needs_its_share(here: HostReport, shared: bool) -> None:
    assert has_agent(here, [SERVES]) is shared
    assert has_agent(here, [host("of before", "")])
    assert not has_agent(here, [])
