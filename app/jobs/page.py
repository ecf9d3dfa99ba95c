"""The page of a job, finished or not, as an answer over HTTP."""

import asyncio
import time

from starlette.responses import Response

from app.jobs.record import JobRecord
from app.jobs.representation import HTML, PAGE_POLICY
from app.jobs.turns import queue_of
from app.state import State
from app.web.job import render_job


async def page_of(
    state: State, record: JobRecord, reader: str | None, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """The page as it is now, for `reader` (None: any); it is never kept.

    Raises UNAVAILABLE if Redis does not answer."""
    message = await state.store.latest_message(record.job.id)
    turn = (await queue_of(state.store, record, reader)).description
    page = await asyncio.to_thread(lambda: render_job(record.job, message, turn, now=time.time()))
    own = {"vary": "accept", "cache-control": "no-store", "content-security-policy": PAGE_POLICY}
    return Response(page, status_code=status, media_type=HTML, headers=own | (headers or {}))
