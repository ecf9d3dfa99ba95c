"""A proxy before Redis that loses one reply: the command is carried out, and the client cannot know."""

import asyncio
from pathlib import Path


class LossyProxy:
    """Forwards a unix socket. After `lose(marker)`, the reply to the next command that holds `marker` is not passed on:
    the connection is closed instead."""

    def __init__(self, upstream: Path, path: Path) -> None:
        self.upstream = upstream
        self.path = path
        self.lost = 0
        self._marker: bytes | None = None
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()

    def lose(self, marker: bytes) -> None:
        self._marker = marker

    async def __aenter__(self) -> "LossyProxy":
        self._server = await asyncio.start_unix_server(self._accept, path=self.path)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for link in self._links:
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.ensure_future(self._link(reader, writer))
        self._links.add(link)
        link.add_done_callback(self._links.discard)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(self.upstream)
        try:
            while True:
                request = await reader.read(1 << 20)
                if not request:
                    return
                far_writer.write(request)
                reply = await far_reader.read(1 << 20)
                if self._marker is not None and self._marker in request:
                    self._marker = None
                    self.lost += 1
                    return
                writer.write(reply)
        finally:
            writer.close()
            far_writer.close()
