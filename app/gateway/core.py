"""The parts of the gateway, made once for an application."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from app.admission import Line
from app.bodies import Bodies
from app.contracts.deployment import Deployment
from app.gateway.constraints import grammar_of
from app.gateway.directory import MAX_AGE_S, Directory
from app.gateway.replicas import Replicas, serving_replicas
from app.gateway.shadow import Sampler
from app.gateway.upstream import Upstream
from app.models.recipes import recipe_fingerprint
from app.security.limits import TokenBuckets
from app.settings import Settings
from app.state import State
from app.telemetry.gateway import UNKNOWN, GatewayMetrics

MOST_GRAMMARS: Final = 4096  # that are remembered
USUAL_PACE: Final = 30.0  # tokens per second of a sequence, until an answer shows it
LEAST_PACED: Final = 16  # tokens of an answer that shows it
INLINE: Final = 4096  # bytes of a body that is parsed and checked on the event loop
QUESTIONS: Final = 8  # of one owner about tokens, at one time


class OwnerLines:
    """A queue per owner of keys, for what one owner may have only so much of at one time."""

    def __init__(self, settings: Settings, most: int) -> None:
        self._settings = settings
        self._most = most
        self._lines: dict[str, Line] = {}

    def of(self, owner: str) -> Line:
        """The queue of this owner."""
        if owner not in self._lines:
            self._lines[owner] = Line(
                per_replica=self._most,
                most_queued=self._settings.gateway_max_queued,
                timeout_s=self._settings.gateway_queue_timeout_s,
            )
        return self._lines[owner]


class Grammars:
    """Requests with a grammar that no answer had before: an owner has only so many at one time, since the engine
    compiles each before its first token."""

    def __init__(self, settings: Settings) -> None:
        self._lines = OwnerLines(settings, settings.gateway_owner_grammars)
        self._compiled: OrderedDict[tuple[str, bytes], None] = OrderedDict()

    @asynccontextmanager
    async def turn(self, owner: str, deployment: Deployment, body: dict[str, Any]) -> AsyncIterator[None]:
        """Waits as `Line.place` does, if the request brings a grammar that is new to the deployment."""
        grammar = grammar_of(body) if owner else None
        known = (deployment.id, grammar or b"")
        if grammar is None or known in self._compiled:
            yield
            return
        async with self._lines.of(owner).place():
            yield
        self._compiled[known] = None
        if len(self._compiled) > MOST_GRAMMARS:
            self._compiled.popitem(last=False)


@dataclass
class Gateway:
    """What the exchanges of one application share."""

    settings: Settings
    metrics: GatewayMetrics
    directory: Directory
    replicas: Replicas
    upstream: Upstream
    sampler: Sampler
    stopping: asyncio.Event
    tokens: TokenBuckets | None  # per minute and owner; None: unlimited
    grammars: Grammars
    questions: OwnerLines
    bodies: Bodies
    lines: dict[str, Line]
    names: dict[str, str]  # of the deployments that have a line, by id
    paces: dict[tuple[str, bool], float]  # tokens per second of a sequence, by deployment and whether it is verified
    looking: asyncio.Task[None] | None = None  # at the store, while requests wait

    @classmethod
    def of(cls, state: State) -> "Gateway":
        """The gateway of an application."""
        store = state.deployments
        metrics = state.telemetry.gateway
        made = cls(
            settings=state.settings,
            metrics=metrics,
            directory=Directory(store),
            replicas=Replicas(),
            upstream=Upstream(state.settings),
            sampler=Sampler(store, metrics),
            stopping=state.stopping,
            tokens=state.tokens,
            grammars=Grammars(state.settings),
            questions=OwnerLines(state.settings, QUESTIONS),
            bodies=Bodies(at_once=32, inline=INLINE),
            lines={},
            names={},
            paces={},
        )
        made.directory.on_read = made.resize
        return made

    def line(self, deployment: Deployment) -> Line:
        """The deployment's queue, as wide as its replicas allow now."""
        line = self.lines.get(deployment.id)
        if line is None:
            self._forget()
            line = self.lines[deployment.id] = Line(
                per_replica=self.settings.gateway_max_in_flight,
                most_queued=self.settings.gateway_max_queued,
                timeout_s=self.settings.gateway_queue_timeout_s,
                owner_share=self.settings.gateway_owner_share,
                on_wait=self._look,
            )
            self.names[deployment.id] = deployment.name
            self.metrics.watch(deployment.name, lambda: line.in_flight, lambda: line.queued)
        line.resize(len(serving_replicas(deployment)))
        return line

    def resize(self, deployments: Iterable[Deployment]) -> None:
        """Makes the queues as wide as these replicas allow: waiting requests go on when one becomes ready."""
        for deployment in deployments:
            line = self.lines.get(deployment.id)
            if line is not None:
                line.resize(len(serving_replicas(deployment)))

    def _look(self) -> None:
        if self.looking is None or self.looking.done():
            self.looking = asyncio.create_task(self._look_on(), name="gateway-looking")

    async def _look_on(self) -> None:
        """Reads the store while requests wait: those that ask it otherwise may all be among them."""
        while any(line.queued for line in self.lines.values()):
            await self.directory.refresh()
            await asyncio.sleep(MAX_AGE_S)

    def _forget(self) -> None:
        """Lets go of deployments that are no more, as far as nothing of theirs is under way."""
        known = self.directory.known
        idle = {key for key, line in self.lines.items() if key not in known and not line.in_flight and not line.queued}
        names = {self.names.pop(key) for key in idle}
        for key in idle:
            del self.lines[key]
            for verified in (False, True):
                self.paces.pop((key, verified), None)
            self.sampler.forget(key)
        for name in names - set(self.names.values()) - set(known.values()):
            self.metrics.forget(name)

    def account(self, deployment: Deployment | None, route: str, status: int) -> None:
        """Counts an answered request."""
        name = UNKNOWN if deployment is None else deployment.name
        self.metrics.requests.labels(name, route, str(status)).inc()

    def pace(self, whose: tuple[str, bool], tokens: float = 0, seconds: float = 1.0) -> float:
        """Tokens per second of a sequence, of answers lately; one with so many `tokens` has just come."""
        if tokens >= LEAST_PACED:
            new = tokens / seconds
            self.paces[whose] = 0.9 * self.paces.get(whose, new) + 0.1 * new
        return self.paces.get(whose, USUAL_PACE)

    def spend(self, owner: str, tokens: int) -> None:
        """Counts tokens that an owner has used."""
        if self.tokens is not None and tokens:
            self.tokens.charge(owner, tokens)
            self.metrics.owner_tokens.labels(owner).inc(tokens)

    async def close(self) -> None:
        """Ends what runs behind the requests, and the connections."""
        if self.looking is not None:
            self.looking.cancel()
            await asyncio.gather(self.looking, return_exceptions=True)
        await self.directory.close()
        await self.sampler.close()
        await self.upstream.close()


def fingerprint(deployment: Deployment, version: str) -> str:
    """`system_fingerprint`: model, recipe (12 digits, "none" where there is none) and calibration of an answer."""
    recipe = recipe_fingerprint(deployment.model.recipe)
    return f"hemostat-{deployment.model.model}-{recipe[:12] if recipe else 'none'}-{version}"
