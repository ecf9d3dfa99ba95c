"""The side of placement: what agents announce, which processes they have taken, and whether more would fit."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, cast

from app.address import loopback
from app.contracts.deployment import Deployment, DeploymentState
from app.contracts.errors import HemostatError
from app.deployments import keys
from app.deployments.placement import Need, Plan, Spot, Wanted, needs, no_room, place
from app.deployments.report import AgentReport, HostReport
from app.deployments.scripts import Scripts
from app.models.registry import settings_of
from app.settings import Settings

# Longer than a gateway takes to start again: one on another host would otherwise end what runs beside it.
GATEWAY_LEASE_S: Final = 600
Reports = Mapping[str, Sequence[AgentReport]]


class PlaceSide(Scripts):
    """Hosts, and the places of processes."""

    async def announce(self, host: HostReport, *, leaves: bool = False) -> list[HostReport]:
        """Says where an agent starts processes, with a lease like a replica's. Answers all hosts, this one included."""
        lease_ms = 0 if leaves else int(self.settings.replica_lease_s * 1000)
        return self._hosts(await self._run("announce", keys.HOSTS, host.agent, lease_ms, host.model_dump_json()))

    async def hosts(self) -> list[HostReport]:
        """What living agents announce."""
        return self._hosts(await self._run("announce", keys.HOSTS, "", 0, ""))

    async def announce_gateway(self) -> None:
        """Says that a gateway runs on this host."""
        pipeline = self.client.pipeline(transaction=True)
        for key in (keys.GATEWAY, keys.gateway(loopback())):
            pipeline.set(key, socket.gethostname(), ex=GATEWAY_LEASE_S)
        await pipeline.execute()

    async def gateway_elsewhere(self, at: str) -> str:
        """The host of a gateway if none is on the loopback interface `at`; "" if one is, or if none is known."""
        anywhere, here = await self.client.mget([keys.GATEWAY, keys.gateway(at)])
        return "" if here or not at else cast("str", anywhere or "")

    @staticmethod
    def _hosts(told: Iterable[str]) -> list[HostReport]:
        return sorted((HostReport.model_validate_json(text) for text in told), key=lambda one: (one.host, one.agent))

    async def reports(self, ids: Iterable[str]) -> dict[str, list[AgentReport]]:
        """What living agents say of these deployments."""
        pipeline, asked = self.client.pipeline(transaction=False), list(ids)
        for deployment_id in asked:
            pipeline.hkeys(keys.agents(deployment_id))
        pairs = [(one, agent) for one, found in zip(asked, await pipeline.execute(), strict=True) for agent in found]
        texts = await self.client.mget([keys.agent(*pair) for pair in pairs]) if pairs else []
        found: dict[str, list[AgentReport]] = {one: [] for one in asked}
        for (deployment_id, _), text in zip(pairs, texts, strict=True):
            if text is not None:
                found[deployment_id].append(AgentReport.model_validate_json(text))
        return found


def planned(settings: Settings, hosts: Sequence[HostReport], deployments: Iterable[Deployment], said: Reports) -> Plan:
    """Where the processes of the deployments are to be. Those that are being deleted want none."""
    wanted = [
        Wanted(one.name, _needs(settings, one), _held(said.get(one.id, ())))
        for one in deployments
        if one.state is not DeploymentState.DRAINING
    ]
    return place(hosts, wanted, reserved=settings.share_diagnosis)


def has_agent(here: HostReport, hosts: Iterable[HostReport]) -> bool:
    """Whether an agent may start processes on the machine of `here`: what it starts later needs its share, too. A
    machine that is not known may be this one."""
    return any(host.host == here.host or host.machine in ("", here.machine) or not here.machine for host in hosts)


def most_devices(settings: Settings, deployments: Iterable[Deployment]) -> int:
    """Devices of the process that is on most."""
    return max(need.devices for one in deployments for need in _needs(settings, one).values())


def refused(settings: Settings, plan: Plan, deployment: Deployment, *, pointer: str = "") -> HemostatError:
    """The refusal of a deployment that the plan has no room for."""
    return no_room(plan, deployment.name, _needs(settings, deployment), pointer=pointer)


def _held(said: Iterable[AgentReport]) -> dict[str, Spot]:
    return {place: Spot(one.agent, one.host, devices) for one in said for place, devices in one.places.items()}


def _needs(settings: Settings, deployment: Deployment) -> dict[str, Need]:
    serving = _sized(settings, deployment.model.model)
    scoring = _sized(settings, deployment.reference.model)
    return needs(
        settings,
        deployment.replicas,
        verify=deployment.verify,
        serving=serving.tensor_parallel_size,  # replicas have no pipeline stages
        scoring=scoring.ranks,
    )


def _sized(settings: Settings, alias: str) -> Settings:
    try:
        return settings_of(settings, alias)
    except HemostatError:  # its processes say what is wrong with the model
        return settings
