"""The page of a job, finished or not, as an answer over HTTP."""

import asyncio
import time

from starlette.responses import Response

from app.jobs.record import JobRecord
from app.jobs.representation import HTML, PAGE_POLICY
from app.jobs.turns import waits_for
from app.state import State
from app.web.job import render_job
from app.web.turn import SETTLE_S


async def page_of(
    state: State, record: JobRecord, owner: str | None, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """The page as it is now; it is never kept. Raises UNAVAILABLE where Redis does not answer."""
    message = await state.store.latest_message(record.job.id)
    queue = await waits_for(state.store, state.docket, record, owner)
    now = time.time()
    settled = now - record.queued_at >= SETTLE_S
    page = await asyncio.to_thread(lambda: render_job(record.job, message, queue, settled=settled, now=now))
    own = {"vary": "accept", "cache-control": "no-store", "content-security-policy": PAGE_POLICY}
    return Response(page, status_code=status, media_type=HTML, headers=own | (headers or {}))
