"""On which host and device each process of each deployment runs. Pure: no Redis, no process.

A process takes a share of each of its devices, on a host that the gateway reaches. The worker's share is kept free on
every device. What runs stays where it is. A new replica goes to the device with the fewest replicas of its deployment.
Of these, an agent that has some of the deployment goes first, then the device with most free bytes. Where no bytes are
known, the free share decides. Shadow and verify go beside a replica if they fit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from app.contracts.errors import ErrorCode, HemostatError
from app.deployments.report import Device, HostReport
from app.settings import Settings

CPU: Final = "cpu"  # the one device of a host without GPUs; all processes of a split model are on it
SERVE: Final = "serve"
UNREACHED: Final = "none, the gateway is on another host (set HEMOSTAT_ADVERTISE_HOST there)"
_ROUNDING: Final = 1e-9


class Need(NamedTuple):
    """What a process takes: `share` of each of so many devices."""

    share: float
    devices: int = 1


class Spot(NamedTuple):
    """Where a process is: the agent that starts it, and the ids of its devices on the agent's host."""

    agent: str
    host: str
    devices: tuple[str, ...]


class Wanted(NamedTuple):
    """A deployment's processes by place (`serve-0`, …, `shadow`, `verify`), and where they are by now."""

    name: str
    needs: Mapping[str, Need]
    held: Mapping[str, Spot] = {}


class Lack(NamedTuple):
    """The first place of a deployment for which there is no room, and what is free beside its other places."""

    place: str
    free: Mapping[tuple[str, str], float]


@dataclass
class Plan:
    """`spots` by deployment and place; `lacking` by deployment. `free`: shares left, by host and device."""

    hosts: Sequence[HostReport]
    free: dict[tuple[str, str], float]
    spots: dict[str, dict[str, Spot]] = field(default_factory=dict)
    lacking: dict[str, Lack] = field(default_factory=dict)

    def keep(self, wanted: Wanted) -> None:
        """What is held stays, if its agent lives and the shares allow it."""
        agents = {host.agent: host for host in self._hosts_of(wanted.name) if host.reached}
        spots = self.spots[wanted.name] = {}
        for place, need in wanted.needs.items():
            spot = wanted.held.get(place)
            host = agents.get(spot.agent) if spot is not None else None
            if spot is None or host is None or len(spot.devices) != _count(host, need):
                continue
            if all(self._room((spot.host, device), need) for device in spot.devices):
                self._take(spots, place, spot, need)

    def add(self, wanted: Wanted) -> None:
        """Finds room for all places that have none, or for none of them. If no agent runs the deployment, none lacks
        room."""
        hosts, spots = self._hosts_of(wanted.name), self.spots[wanted.name]
        added: list[str] = []
        for place, need in wanted.needs.items() if hosts else ():
            if place in spots:
                continue
            spot = self._best([host for host in hosts if host.reached], place, need, spots)
            if spot is None:
                self.lacking[wanted.name] = Lack(place, dict(self.free))
                for undone in added:
                    self._take(spots, undone, spots[undone], wanted.needs[undone], back=True)
                return
            self._take(spots, place, spot, need)
            added.append(place)

    def _hosts_of(self, name: str) -> list[HostReport]:
        return [host for host in self.hosts if not host.names or name in host.names]

    def _room(self, device: tuple[str, str], need: Need) -> bool:
        return self.free.get(device, -1.0) >= need.share - _ROUNDING

    def _take(self, spots: dict[str, Spot], place: str, spot: Spot, need: Need, *, back: bool = False) -> None:
        for device in spot.devices:
            self.free[spot.host, device] += need.share if back else -need.share
        if back:
            del spots[place]
        else:
            spots[place] = spot

    def _best(self, hosts: Iterable[HostReport], place: str, need: Need, spots: Mapping[str, Spot]) -> Spot | None:
        replicas = Counter(
            (spot.host, device) for other, spot in spots.items() if _role(other) == SERVE for device in spot.devices
        )
        agents = {spot.agent for spot in spots.values()}

        def rank(host: str, device: Device) -> tuple[int, tuple[float, float]]:
            crowd, share = replicas[host, device.id], round(self.free[host, device.id], 9)
            return crowd if _role(place) == SERVE else -min(crowd, 1), (-share * device.bytes, -share)

        found: list[tuple[tuple[int, bool, tuple[float, float]], Spot]] = []
        for host in hosts:
            roomy = [one for one in host.devices if self._room((host.host, one.id), need)]
            chosen = sorted(roomy, key=lambda device: rank(host.host, device))[: _count(host, need)]
            if len(chosen) == _count(host, need):
                crowds, free = zip(*(rank(host.host, device) for device in chosen), strict=True)
                order = (sum(crowds), host.agent not in agents, max(free))
                found.append((order, Spot(host.agent, host.host, tuple(one.id for one in chosen))))
        return min(found, key=lambda one: one[0])[1] if found else None


def place(hosts: Sequence[HostReport], deployments: Sequence[Wanted], *, reserved: float) -> Plan:
    """A spot for each process of the deployments, oldest first. `reserved`: the worker's share of every device."""
    reached = [host for host in hosts if host.reached]
    plan = Plan(hosts, {(host.host, device.id): 1.0 - reserved for host in reached for device in host.devices})
    for one in deployments:
        plan.keep(one)
    for one in deployments:
        plan.add(one)
    return plan


def host_to_come(devices: int) -> HostReport:
    """What is counted on until an agent has announced its devices."""
    return HostReport(agent="", host="a host to come", devices=tuple(Device(id=f"device {n}") for n in range(devices)))


def needs(
    settings: Settings, replicas: int, *, verify: bool = False, serving: int = 1, scoring: int = 1
) -> dict[str, Need]:
    """What a deployment's processes take, `serving` and `scoring` being the devices over which their engines are
    split."""
    found = {f"{SERVE}-{number}": Need(settings.share_serving, serving) for number in range(replicas)}
    found["shadow"] = Need(settings.share_shadow, scoring)
    return found | ({"verify": Need(settings.share_verify, scoring)} if verify else {})


def no_room(plan: Plan, name: str, needed: Mapping[str, Need], *, pointer: str = "") -> HemostatError:
    """The refusal of a deployment that `plan` finds no room for, with what is free of each device."""
    lack = plan.lacking[name]
    need = needed[lack.place]
    several = f" on each of {need.devices} devices of a host" if need.devices > 1 else ""
    hosts = {host.host: [one.id for one in host.devices if (host.host, one.id) in lack.free] for host in plan.hosts}
    free = "; ".join(
        f"{host}: " + (", ".join(f"{one} {max(0.0, lack.free[host, one]):.2f}" for one in devices) or UNREACHED)
        for host, devices in hosts.items()
    )
    return HemostatError(
        ErrorCode.DEPLOYMENT_CONFLICT,
        f"No device has room for {lack.place} of {name}, which takes a share of {need.share:g}{several}. "
        f"Free shares beside its other processes: {free}.",
        hint="Serve fewer replicas, add a device, or lower HEMOSTAT_SHARE_SERVING, HEMOSTAT_SHARE_SHADOW, "
        "HEMOSTAT_SHARE_VERIFY or HEMOSTAT_SHARE_DIAGNOSIS.",
        pointer=pointer,
    )


def check_one_fits(settings: Settings, host: HostReport) -> None:
    """Raises DEPLOYMENT_CONFLICT if an empty host has no room for a deployment of one replica."""
    name, taken = "a deployment", needs(settings, 1)
    plan = place([host], [Wanted(name, taken)], reserved=settings.share_diagnosis)
    if name in plan.lacking:
        raise no_room(plan, name, taken)


def _role(place: str) -> str:
    return place.partition("-")[0]


def _count(host: HostReport, need: Need) -> int:
    return 1 if [one.id for one in host.devices] == [CPU] else need.devices
