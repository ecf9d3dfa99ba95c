"""One deployment that `hemostat up` sees to: made where it is missing, and what happens to it told in the terminal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Final

from redis.exceptions import RedisError
from rich.console import Console
from rich.markup import escape
from rich.status import Status

from app.contracts.deployment import Deployment, DeploymentEvent, DeploymentRequest
from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.job import JobStatus, Progress
from app.deployments.service import preflight
from app.deployments.shares import Wanted, check_shares, shares_of
from app.deployments.store import DeploymentStore
from app.deployments.words import event_line, event_style
from app.jobs.connection import connect
from app.jobs.store import JobStore
from app.settings import Settings

LOOK_S: Final = 1.0
_TOLD: Final = frozenset(
    {"state", "fit_started", "refused", "promoted", "rolled_back", "alarm", "cleared", "stale", "deleted"}
)


class Announcement:
    """Call `begin` once the service is up, `poll` often, `end` at the end. None of them raises what Redis may."""

    def __init__(
        self, settings: Settings, request: DeploymentRequest, console: Console, phases: Mapping[str, str]
    ) -> None:
        self.settings = settings
        self.request = request
        self.console = console
        self.phases = phases
        self._id = ""
        self._after = 0
        self._due = 0.0
        self._phase = ""
        self._status: Status | None = None

    def begin(self) -> None:
        """Makes the deployment, or finds it, and says which. A request that is refused is said, and left."""
        try:
            deployment, made = asyncio.run(self._ensure())
        except HemostatError as error:
            self.console.print(f"[red]{escape(self.request.name)} is not served:[/] {escape(error.detail)}")
            if error.hint:
                self.console.print(f"  what to do: {escape(error.hint)}")
            return
        except (RedisError, OSError) as error:
            self.console.print(f"{escape(self.request.name)} is not looked at: Redis is away ({type(error).__name__})")
            return
        self._id = deployment.id
        if made:
            self.console.print(f"[bold]{escape(deployment.name)}[/] is made; it answers as soon as it is ready")
        else:
            reason = f" ({deployment.fit_reason})" if deployment.fit_reason else ""
            self.console.print(
                f"[bold]{escape(deployment.name)}[/] is there, {deployment.state.value}: it serves "
                f"{deployment.active_version}{escape(reason)}"
            )

    def poll(self) -> None:
        """Tells what has happened since."""
        if not self._id or time.monotonic() < self._due:
            return
        self._due = time.monotonic() + LOOK_S
        try:
            events, progress = asyncio.run(self._look())
        except (RedisError, OSError, HemostatError):
            return
        for event in events:
            if event.type.value in _TOLD:
                body = event.model_dump(mode="json")
                style = event_style(body) or "default"
                line = escape(f"{self.request.name}: {event_line(body)}")
                self.console.print(f"[{style}]{line}[/]", soft_wrap=True)
        self._progress(progress)

    def end(self) -> None:
        """Takes the progress away."""
        self._progress(None)

    def _progress(self, progress: Progress | None) -> None:
        if progress is None:
            if self._status is not None:
                self._status.stop()
                self._status = None
            return
        what = self.phases.get(progress.phase, progress.phase)
        line = f"{self.request.name}: fitting its calibration: {what}"
        if self.console.is_terminal:
            done = f" {progress.done}/{progress.total}" if progress.total else ""
            self._status = self._status or self.console.status("")
            self._status.update(escape(line + done))
            self._status.start()
        elif progress.phase != self._phase:
            self.console.print(escape(line), soft_wrap=True)
        self._phase = progress.phase

    async def _ensure(self) -> tuple[Deployment, bool]:
        client = connect(self.settings)
        try:
            store = DeploymentStore(client, self.settings)
            try:
                found = await store.get(self.request.name)
            except HemostatError:
                pass
            else:
                self._after = await store.last_event(found.id)
                return found, False
            preflight(self.request, self.settings)
            others = shares_of(await store.list())
            wanted = Wanted(self.request.name, self.request.replicas, self.request.verify)
            check_shares(self.settings, [*others, wanted])
            try:
                return await store.create(self.request), True
            except HemostatError as error:
                if error.code is not ErrorCode.DEPLOYMENT_EXISTS:
                    raise
                return await store.get(self.request.name), False  # somebody was quicker
        finally:
            await client.aclose()

    async def _look(self) -> tuple[list[DeploymentEvent], Progress | None]:
        client = connect(self.settings)
        try:
            store = DeploymentStore(client, self.settings)
            found = await store.events(self._id, self._after)
            if found:
                self._after = found[-1][0]
            deployment = await store.get(self._id) if not any(e.type.value == "deleted" for _, e in found) else None
            job = None
            if deployment is not None and deployment.fit_job is not None:
                job = await JobStore(client, self.settings).get(deployment.fit_job)
            unfinished = job is not None and job.job.status in {JobStatus.QUEUED, JobStatus.RUNNING}
            return [event for _, event in found], job.job.progress if job is not None and unfinished else None
        finally:
            await client.aclose()
