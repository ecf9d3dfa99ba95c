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

from app.contracts.deployment import (
    Deployment,
    DeploymentEvent,
    DeploymentEventType,
    DeploymentRequest,
    DeploymentState,
)
from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.job import Job, JobStatus, Progress
from app.deployments.service import preflight
from app.deployments.store import DeploymentStore
from app.deployments.words import NO_AGENT, event_line, event_style
from app.jobs.connection import connect
from app.jobs.store import JobStore
from app.settings import Settings

LOOK_S: Final = 1.0
WAY: Final = "waiting for other jobs, then it continues"
STEP: Final = 10  # percentage points of a phase from line to line, where there is no terminal
_TOLD: Final = frozenset({"state", "fit_started", "refused", "promoted", "rolled_back", "alarm", "cleared", "deleted"})


def found_words(deployment: Deployment) -> str:
    """Of one that was there: what it serves, or is about to. Its processes start with the service, after this."""
    reason = f" ({deployment.fit_reason})" if deployment.fit_reason else ""
    serves = any(one.role == "serve" and one.state is DeploymentState.READY for one in deployment.running)
    state = f"exists, {deployment.state.value}: it serves" if serves else "exists and starts; it will serve"
    return f"{state} {deployment.active_version}{reason}"


def is_told(event: DeploymentEvent, deployment: Deployment | None) -> bool:
    """Whether it is news: not that no agent runs it, which is started here, nor that no traffic is no longer observed
    where none ever was."""
    if event.type is DeploymentEventType.STALE:
        return deployment is not None and deployment.shadow is not None and deployment.shadow.divergence is not None
    return event.type.value in _TOLD and NO_AGENT not in event.reason


def fit_progress(job: Job) -> Progress | None:
    """How far a fit is; None if it has ended. One that has begun and is queued again made way for other jobs."""
    if job.status is JobStatus.QUEUED and job.attempt:
        return Progress(phase=WAY)
    return job.progress if job.status in {JobStatus.QUEUED, JobStatus.RUNNING} else None


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
        self._percent = 0
        self._status: Status | None = None

    def begin(self) -> None:
        """Makes the deployment, or finds it, and says which. A request that is refused is reported, and left."""
        try:
            deployment, made = asyncio.run(self._ensure())
        except HemostatError as error:
            self.console.print(f"[red]{escape(self.request.name)} is not served:[/] {escape(error.detail)}")
            if error.hint:
                self.console.print(f"  what to do: {escape(error.hint)}")
            return
        except (RedisError, OSError) as error:
            self.console.print(
                f"{escape(self.request.name)} is not checked: Redis does not answer ({type(error).__name__})"
            )
            return
        self._id = deployment.id
        if made:
            self.console.print(f"[bold]{escape(deployment.name)}[/] is created; it answers as soon as it is ready")
        else:
            self.console.print(f"[bold]{escape(deployment.name)}[/] {escape(found_words(deployment))}")

    def poll(self) -> None:
        """Shows what has happened since."""
        if not self._id or time.monotonic() < self._due:
            return
        self._due = time.monotonic() + LOOK_S
        try:
            events, progress, deployment = asyncio.run(self._look())
        except (RedisError, OSError, HemostatError):
            return
        for event in events:
            if is_told(event, deployment):
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
            return
        percent = 100 * progress.done // progress.total if progress.total else 0
        if progress.phase != self._phase:
            self._phase, self._percent = progress.phase, 0
            told = f"{line} {percent} %" if percent >= STEP else line
        elif percent >= self._percent + STEP:
            told = f"{line} {percent} %"
        else:
            return
        self._percent = percent
        self.console.print(escape(told), soft_wrap=True)

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
            await preflight(self.request, self.settings, "")
            try:
                return await store.create(self.request, within_memory=True), True
            except HemostatError as error:
                if error.code is not ErrorCode.DEPLOYMENT_EXISTS:
                    raise
                return await store.get(self.request.name), False  # somebody was quicker
        finally:
            await client.aclose()

    async def _look(self) -> tuple[list[DeploymentEvent], Progress | None, Deployment | None]:
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
            return [event for _, event in found], fit_progress(job.job) if job is not None else None, deployment
        finally:
            await client.aclose()
