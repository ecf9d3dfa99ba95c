"""An idle worker helps with the running job of another one.

Kinds whose work falls into points (`Kind.helper`) keep each point in the job's scratch folder, and anyone who measures
one holds a lock on it. So a second worker needs no queue of its own. It looks for a running job that measures points,
and takes what no one has. The first worker makes the report. A worker that does not see the job's scratch folder does
not help: the two share no HEMOSTAT_HOME, and what it measured would be lost."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from pkgutil import resolve_name
from typing import Final

from redis.exceptions import RedisError

from app.contracts.job import JobStatus
from app.jobs.filters import Filters
from app.jobs.record import Claim
from app.jobs.store import JobStore
from app.settings import Settings
from workers.process.context import scratch_folder
from workers.process.drain import Drain
from workers.process.failures import safe_traceback
from workers.process.handler import Handlers
from workers.process.runner import Runner

logger = logging.getLogger(__name__)

LOOK_S: Final = 1.0
# The phase in which there is something to take over: before it the first worker scores the reference, once.
PHASE: Final = "points"
_REMEMBERED: Final = 256
_RUNNING: Final = 50


class Helping:
    """Looks for something to help with whenever the worker has no job of its own."""

    def __init__(self, settings: Settings, store: JobStore, runner: Runner, drain: Drain, *, worker: str) -> None:
        self._settings, self._store, self._runner, self._drain = settings, store, runner, drain
        self._worker = worker
        self._done: deque[tuple[str, int]] = deque(maxlen=_REMEMBERED)

    async def run(self, handlers: str) -> None:
        """For ever; returns at once where the settings switch helping off, or no kind can be helped with."""
        found: Handlers = resolve_name(handlers)
        if not self._settings.help_others or not found.shared:
            return
        while True:
            await asyncio.sleep(LOOK_S)
            if self._runner.job or self._drain.begun.is_set():
                continue
            try:
                claim = await self._needy(found.shared)
                if claim is not None and await self._runner.lend(claim):
                    self._done.append((claim.job_id, claim.attempt))
            except (RedisError, OSError):
                continue  # it is looked for again
            except Exception as error:
                logger.error("helping failed\n%s", safe_traceback(error))  # noqa: TRY400

    async def _needy(self, kinds: frozenset[str]) -> Claim | None:
        """The oldest running job of another worker that measures points, and has not been helped by this one."""
        records, _ = await self._store.page(limit=_RUNNING, filters=Filters(status=JobStatus.RUNNING))
        for record in reversed(records):
            job = record.job
            if job.kind not in kinds or job.progress.phase != PHASE or record.worker == self._worker:
                continue
            if (job.id, job.attempt) in self._done or not scratch_folder(self._settings, job.id).is_dir():
                continue
            claim = await self._store.claim_of(record)
            if claim is not None:
                return claim
        return None
