"""A claimed job in the child, and why and how it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import time
from enum import StrEnum

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.job import JobError, job_error
from app.contracts.request import JobRequest
from app.error_guide import GUIDE
from app.jobs.record import Claim
from app.models.looking import reading_s
from app.models.registry import load_registry
from app.settings import Settings
from workers.process.handle import ChildProcess
from workers.process.messages import Cancel
from workers.process.tasks import cancel
from workers.process.yielding import Turn


class Reason(StrEnum):
    """Why an attempt is stopped."""

    CANCEL = "cancel"
    LOST = "lost"
    DRAIN = "drain"
    YIELD = "yield"
    STALL = "stalled"
    TIMEOUT = "timed_out"


def longest_silence_s(request: JobRequest, settings: Settings) -> float:
    """HEMOSTAT_JOB_STALL_S, and the time that a slow disk takes for the two models: an engine loads one in one call."""
    seconds = settings.job_stall_s
    with contextlib.suppress(HemostatError, OSError):  # the job itself says what is wrong with them
        registry = load_registry(settings.models_file)
        for alias in {request.reference.model, request.candidate.model}:
            seconds += reading_s(registry.resolve(alias).checkpoint_path())
    return seconds


class Attempt:
    """A claimed job in the child, and how it is being stopped."""

    def __init__(self, claim: Claim, child: ChildProcess, grace_s: float, turn: Turn) -> None:
        self.claim = claim
        self.child = child
        self.turn = turn
        self.reason: Reason | None = None
        self.silent_s = 0.0  # since the child was last heard
        self.stall_s = 0.0  # silent for so long, it hangs
        self._grace_s = grace_s
        self._over = False
        self._killing = False
        self._asking: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[None] | None = None

    def stop(self, reason: Reason) -> None:
        """Asks the child to stop; kills it when it has not within the grace. The first reason holds, but for LOST.

        To make way it is asked only, since a kill would throw away what it is about to keep; any other reason comes
        before that one. One that hangs hears nothing: it is not asked, and its stack goes to the log.
        """
        if self._over:
            return
        if reason is Reason.YIELD:
            if self.reason is None:
                self.reason = reason
                self._asking = asyncio.create_task(self._ask(), name="make way")
            return
        if self._stopping is None:
            end = self._abort() if reason is Reason.STALL else self._stop_or_kill()
            self._stopping = asyncio.create_task(end, name="stop")
        if self.reason in {None, Reason.YIELD} or reason is Reason.LOST:
            self.reason = reason

    def overdue(self) -> JobError | None:
        """What it means that it was stopped for its time."""
        if self.reason is Reason.STALL:
            detail = f"the job gave no sign of progress for {self.stall_s:.0f} s and was ended"
            return job_error(ErrorCode.STALLED, detail, GUIDE[ErrorCode.STALLED])
        if self.reason is Reason.TIMEOUT:
            detail = f"the attempt took longer than the request's `timeout_s` of {self.claim.request.timeout_s:g} s"
            return job_error(ErrorCode.TIMED_OUT, detail, GUIDE[ErrorCode.TIMED_OUT])
        return None

    async def settle(self) -> None:
        """The child has said how it ended, or is gone: nothing stops it any more, and no kill is left half-done."""
        self._over = True
        if self._asking is not None:
            await cancel(self._asking)
        if self._stopping is not None and not self._killing:
            await cancel(self._stopping)
        elif self._stopping is not None:
            await self._stopping

    async def watch_time(self, timeout_s: float | None) -> None:
        """Stops an attempt that takes longer than its request allows."""
        if timeout_s is not None:
            await asyncio.sleep(timeout_s)
            self.stop(Reason.TIMEOUT)

    async def _abort(self) -> None:
        self._killing = True
        await self.child.abort()

    async def _ask(self) -> None:
        await self.child.send(Cancel(job=self.claim.job_id, attempt=self.claim.attempt))

    async def _stop_or_kill(self) -> None:
        deadline = time.monotonic() + self._grace_s
        with contextlib.suppress(TimeoutError):
            # A child that does not read is no reason to wait longer.
            await asyncio.wait_for(self._ask(), self._grace_s)
        await asyncio.sleep(deadline - time.monotonic())
        if not self._over:
            self._killing = True
            await self.child.kill()
