"""Keeps deployments and processes the same: `hemostat serve`, or `python -m app.deployments.agent`.

Once a second it announces its host's devices and compares the deployments in Redis with its processes. Each wanted
replica has a serving process, each deployment a shadow process, and a verifying one on request. `placement` gives each
process a host and devices; all agents compute the same, and each takes its own. What ends is started again after a
pause that grows; the end of its log becomes the deployment's reason. While Redis is away the processes go on.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from redis.exceptions import RedisError

from app.contracts.deployment import Deployment, DeploymentState
from app.contracts.errors import HemostatError
from app.deployments.devices import bound_to, own_host
from app.deployments.place_side import planned, refused
from app.deployments.placement import Plan, check_one_fits
from app.deployments.report import AgentReport, HostReport
from app.deployments.service import remove_files
from app.deployments.store import DeploymentStore
from app.jobs.connection import connect
from app.jobs.ids import new_ulid
from app.secrets import hide_memory
from app.settings import Settings
from app.supervisor import Interruptions, Program, Say, Supervisor, environment_of

logger = logging.getLogger(__name__)

TICK_S: Final = 1.0
ATTEMPTS: Final = 3  # ends of a process after which its deployment has failed; it is tried on, ever more rarely
MARGIN_S: Final = 15.0
LOG_LINES: Final = 5
MAX_FAULT: Final = 800  # characters
MODULES: Final[Mapping[str, str]] = {"serve": "workers.serve", "shadow": "workers.shadow", "verify": "workers.verify"}

Places = Mapping[str, tuple[str, ...]]  # `serve-0`, …, `shadow`, `verify`: its devices


@dataclass
class Held:
    """A deployment that this agent has, and its processes."""

    name: str
    programs: dict[str, Program] = field(default_factory=dict)
    places: dict[str, tuple[str, ...]] = field(default_factory=dict)
    leaving: list[Program] = field(default_factory=list)

    def running(self) -> int:
        """Processes that have not ended."""
        self.leaving = [program for program in self.leaving if program.running]
        return sum(program.running for program in self.programs.values()) + len(self.leaving)


class Agent:
    """`names`: the deployments to run, by name; none: all. `modules`: what runs each role. `host`: instead of this
    machine and its devices."""

    def __init__(
        self,
        settings: Settings,
        store: DeploymentStore,
        say: Say,
        *,
        names: Sequence[str] = (),
        shadow: bool = True,
        modules: Mapping[str, str] = MODULES,
        host: HostReport | None = None,
    ) -> None:
        self.settings = settings
        self.store = store
        self.names = frozenset(names)
        self.shadow = shadow
        self.modules = modules
        host = host or own_host()
        self.identity = f"{host.host}:{os.getpid()}:{new_ulid()}"
        self.host = host.model_copy(update={"agent": self.identity, "names": tuple(names)})
        self.held: dict[str, Held] = {}
        self.supervisor = Supervisor((), say)
        self._say = say
        self._others: set[str] = set()
        self._away = False
        self._gateway = ""

    async def tick(self) -> None:
        """One comparison. Raises nothing for a Redis that is away."""
        try:
            await self._compare()
        except (RedisError, OSError) as error:
            if not self._away:
                self._say(f"Redis is away ({type(error).__name__}); what runs goes on")
            self._away = True
        else:
            if self._away:
                self._say("Redis answers again")
            self._away = False
        self.supervisor.tend()

    async def _compare(self) -> None:
        await self._look_for_gateway()
        hosts = await self.store.announce(self.host)
        found = await self.store.list()
        listed = {one.id for one in found}
        for deployment_id in [known for known in self.held if known not in listed]:
            self._release(deployment_id)
        plan = planned(self.settings, hosts, found, await self._said(listed))
        for deployment in found:
            if not self.names or deployment.name in self.names:
                await self._tend(deployment, plan)

    async def _look_for_gateway(self) -> None:
        """Without a name for other hosts, processes here are reached by a gateway on this host only."""
        named = self.settings.advertise_host is not None
        elsewhere = "" if named else await self.store.gateway_elsewhere(self.host.loopback)
        self.host = self.host.model_copy(update={"reached": not elsewhere})
        if elsewhere and not self._gateway:
            self._say(
                f"the gateway on {elsewhere} does not reach this host, so nothing is started here: "
                "set HEMOSTAT_ADVERTISE_HOST to the name or address of this host"
            )
        self._gateway = elsewhere

    async def _said(self, ids: Iterable[str]) -> dict[str, list[AgentReport]]:
        """What agents say of the deployments. What this one runs counts also if Redis has lost its report, unless
        another agent has the place by now."""
        said = await self.store.reports(ids)
        for deployment_id, reports in said.items():
            if held := self.held.get(deployment_id):
                reports.insert(0, AgentReport(agent=self.identity, host=self.host.host, places=held.places))
        return said

    async def _tend(self, deployment: Deployment, plan: Plan) -> None:
        draining = deployment.state is DeploymentState.DRAINING
        spots = {} if draining else plan.spots[deployment.name]
        mine = {place: spot.devices for place, spot in spots.items() if spot.agent == self.identity}
        error = None if draining or deployment.name not in plan.lacking else refused(self.settings, plan, deployment)
        no_room = f"{error.detail} {error.hint}" if error else ""
        held = self.held.get(deployment.id) or Held(deployment.name)
        idle = not (mine or no_room or draining or held.running())
        if idle:
            await self._leave_alone(deployment)
            return
        answer = await self.store.report(deployment.id, self._report(deployment, held, mine, no_room))
        if answer == "other":  # another agent took a place since the plan was made: the next one knows
            return
        self._others.discard(deployment.id)
        if answer == "forgotten":
            self._release(deployment.id)
            remove_files(self.settings, deployment.id)
            self._say(f"{deployment.name} is gone")
            return
        self.held[deployment.id] = held
        self._arrange(deployment, held, {} if answer is DeploymentState.DRAINING else mine)

    async def _leave_alone(self, deployment: Deployment) -> None:
        if deployment.id not in self._others:
            self._say(f"{deployment.name} is run by another agent; it is left alone")
        self._others.add(deployment.id)
        if deployment.id in self.held:
            self._release(deployment.id)
            await self.store.report(deployment.id, AgentReport(agent=self.identity), leaves=True)

    def _arrange(self, deployment: Deployment, held: Held, places: Places) -> None:
        """Starts what is to run, each on its devices, and ends everything else."""
        wanted = {place: devices for place, devices in places.items() if self.shadow or place != "shadow"}
        for place in [place for place in held.programs if wanted.get(place) != held.places.get(place)]:
            self._end(held, place)
        held.places = dict(places)
        busy = {program.name for program in held.leaving}  # an earlier one of the same place still drains
        for place in sorted(wanted.keys() - held.programs.keys()):
            if f"{deployment.name}/{place}" not in busy:
                self._start(deployment, held, place)

    def _start(self, deployment: Deployment, held: Held, place: str) -> None:
        role, _, number = place.partition("-")
        arguments = [self.modules[role], "--deployment", deployment.id]
        arguments += ["--replica", number] if number else []
        log = self.settings.home / "deployments" / deployment.id / "logs" / f"{place}.log"
        devices = held.places[place]
        program = Program(
            f"{deployment.name}/{place}", arguments, environment_of(self.settings) | bound_to(devices), log
        )
        held.programs[place] = program
        self.supervisor.add(program)
        self._say(f"{program.name} is started on {', '.join(devices)}; its log: {program.log}")

    def _end(self, held: Held, place: str) -> None:
        program = held.programs.pop(place)
        if program.running:
            self._say(f"{program.name} ends")
            held.leaving.append(program)
        self.supervisor.retire(program, self._patience)

    def _release(self, deployment_id: str) -> None:
        held = self.held.pop(deployment_id, None)
        for place in list(held.programs) if held else ():
            assert held is not None  # noqa: S101 - it has places
            self._end(held, place)

    @property
    def _patience(self) -> float:
        return self.settings.drain_s + MARGIN_S

    def _report(self, deployment: Deployment, held: Held, places: Places, no_room: str) -> AgentReport:
        well = {replica.pid for replica in deployment.running if replica.state is DeploymentState.READY}
        troubled = [one for one in held.programs.values() if one.troubled and one.pid not in well]
        worst = max(troubled, key=lambda program: program.failures, default=None)
        return AgentReport(
            agent=self.identity,
            host=self.host.host,
            places=dict(places),
            processes=held.running(),
            fault=no_room or (_fault(worst) if worst else ""),
            failed=bool(no_room) or (worst is not None and worst.failures >= ATTEMPTS),
        )

    async def leave(self) -> None:
        """Gives every deployment up, so that another agent may have it at once."""
        try:
            await self.store.announce(self.host, leaves=True)
            for deployment_id in self.held:
                await self.store.report(deployment_id, AgentReport(agent=self.identity), leaves=True)
        except (RedisError, OSError):
            return  # the leases run out

    def stop(self, interruptions: Interruptions) -> None:
        """Ends every process at the same time: each drains; Ctrl-C meanwhile hurries, the third one kills."""
        try:
            programs = self.supervisor.programs
            self.supervisor.stop(programs, self._patience, interruptions, before=min(interruptions.count, 1))
        finally:
            self.supervisor.kill()


def _fault(program: Program) -> str:
    times = "once" if program.failures == 1 else f"{program.failures} times"
    ended = f"{program.name} ended {times}, last with {program.ended_with}"
    lines = program.last_lines(LOG_LINES).strip()
    return f"{ended}: {lines[-MAX_FAULT:]}" if lines else f"{ended}; its log is empty"


async def _run(agent: Agent, interruptions: Interruptions) -> None:
    while interruptions.count < 1:
        await agent.tick()
        due = time.monotonic() + TICK_S
        while interruptions.count < 1 and time.monotonic() < due:  # noqa: ASYNC110 - a signal handler counts
            await asyncio.sleep(TICK_S / 10)


def run_agent(
    settings: Settings,
    say: Say,
    *,
    names: Sequence[str] = (),
    shadow: bool = True,
    modules: Mapping[str, str] = MODULES,
) -> int:
    """Runs until SIGINT or SIGTERM, drains every process, and answers the exit status.

    Raises HemostatError (DEPLOYMENT_CONFLICT) if not even one deployment fits this host's devices,
    (DEPLOYMENT_NOT_FOUND) for a name that is not there, where Redis answers, and what `own_host` raises.
    """
    host = own_host()
    check_one_fits(settings, host)
    settings = settings.model_copy(update={"home": settings.home.expanduser().resolve()})

    async def whole(interruptions: Interruptions) -> None:
        client = connect(settings)
        try:
            store = DeploymentStore(client, settings)
            agent = Agent(settings, store, say, names=names, shadow=shadow, modules=modules, host=host)
            try:
                await _require(agent.store, names)
                await _run(agent, interruptions)
            finally:
                await asyncio.to_thread(agent.stop, interruptions)
                await agent.leave()
        finally:
            await client.aclose()

    with Interruptions() as interruptions:  # said once a signal is heard: anyone who reads it may send one
        say(
            f"serving {', '.join(names) if names else 'every deployment'}; Ctrl-C or SIGTERM finishes the answers "
            "and stops"
        )
        asyncio.run(whole(interruptions))
    return 0


async def _require(store: DeploymentStore, names: Sequence[str]) -> None:
    try:
        for name in names:
            await store.resolve(name)
    except (RedisError, OSError):
        return


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the process that `hemostat up` starts."""
    parser = argparse.ArgumentParser(prog="python -m app.deployments.agent")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--no-shadow", action="store_true")
    for role, module in MODULES.items():
        parser.add_argument(f"--{role}-module", default=module)
    given = parser.parse_args(arguments)
    settings = Settings()
    hide_memory()
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    modules = {role: getattr(given, f"{role}_module") for role in MODULES}
    try:
        return run_agent(settings, logger.info, names=given.names, shadow=not given.no_shadow, modules=modules)
    except HemostatError as error:
        sys.stderr.write(f"{error.detail} {error.hint}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
