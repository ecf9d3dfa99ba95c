"""The page of a job, finished or not, as an answer over HTTP."""

import asyncio
import time

from starlette.responses import Response

from app.contracts.job import JobStatus
from app.jobs.record import JobRecord
from app.jobs.representation import HTML, PAGE_POLICY
from app.jobs.turns import before
from app.state import State
from app.web.job import render_job


async def page_of(
    state: State, record: JobRecord, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """The page as it is now; it is never kept. Raises UNAVAILABLE if Redis does not answer."""
    message = await state.store.latest_message(record.job.id)
    queued = record.job.status is JobStatus.QUEUED
    waits = await before(state.store, record.job.id) if queued else 0
    page = await asyncio.to_thread(lambda: render_job(record.job, message, waits, now=time.time()))
    own = {"vary": "accept", "cache-control": "no-store", "content-security-policy": PAGE_POLICY}
    return Response(page, status_code=status, media_type=HTML, headers=own | (headers or {}))
