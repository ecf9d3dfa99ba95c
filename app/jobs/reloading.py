"""The page of a running job goes on loading itself again while the service cannot answer."""

from __future__ import annotations

from typing import Final

from fastapi import Request
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.jobs.diff_routes import links_wanted
from app.jobs.ids import is_job_id
from app.jobs.record import JOBS_PATH
from app.web.job import RELOAD_S

_FOR_NOW: Final = frozenset({429, 503})


class GoesOnReloading:
    """Gives a browser's 429 and 503 of a job's address a `Refresh`: the page that would have had one is not there."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on; adds the header to what is sent."""
        if scope["type"] != "http" or not _is_followed(scope):
            await self.app(scope, receive, send)
            return

        async def refreshed(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] in _FOR_NOW:
                MutableHeaders(scope=message)["refresh"] = str(RELOAD_S)
            await send(message)

        await self.app(scope, receive, refreshed)


def _is_followed(scope: Scope) -> bool:
    folder, _, job_id = scope["path"].rpartition("/")
    return scope["method"] == "GET" and folder == JOBS_PATH and is_job_id(job_id) and links_wanted(Request(scope))
