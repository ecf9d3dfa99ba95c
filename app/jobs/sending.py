"""A job's file on its way to a client."""

from starlette.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send

from app.jobs import results, service
from app.jobs.store import JobStore


class ArtifactResponse(FileResponse):
    """The file, whole or in ranges. Nothing is sent before it is open: one that was deleted meanwhile is refused, not
    cut off."""

    def __init__(self, store: JobStore, job_id: str, artifact: results.Artifact) -> None:
        super().__init__(
            artifact.path, media_type=artifact.media_type, filename=artifact.name, stat_result=artifact.state
        )
        self._store = store
        self._job_id = job_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends it. Raises JOB_NOT_FOUND, or ARTIFACT_NOT_FOUND where the job is there and its file is gone."""
        start: list[Message] = []

        async def send_opened(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.append(message)
                return
            while start:
                await send(start.pop())
            await send(message)

        async with service.told_of_deleted(self._store, [self._job_id]):
            try:
                await super().__call__(scope, receive, send_opened)
            except FileNotFoundError:
                raise results.gone("artifact") from None
