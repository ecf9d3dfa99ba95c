"""A replica that streams as fast as whoever reads takes it, without end or so many events, and counts what it wrote.

For what a real model cannot produce: more than the buffers of every kernel socket on the way hold.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

PADDING = "x" * 3000


def event(number: int) -> bytes:
    """One event of about 3 KB, as vLLM writes them."""
    choices = [{"index": 0, "text": f"{number} {PADDING}", "logprobs": None, "finish_reason": None}]
    body = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "served", "choices": choices}
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


class Endless:
    """`written`: bytes of each stream, by the request's `user`; `left`: those whose reader has gone."""

    def __init__(self) -> None:
        self.written: dict[str, int] = {}
        self.left: set[str] = set()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until it is closed."""
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = next((int(line[15:]) for line in head.split("\r\n") if line.startswith("content-length:")), 0)
                body = json.loads(await reader.readexactly(length)) if length else {}
                if head.startswith("get"):
                    told = b'{"data":[{"id":"served"}]}'
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(told), told))
                    await writer.drain()
                    continue
                await self._stream(writer, body)
        writer.close()

    async def _stream(self, writer: asyncio.StreamWriter, body: dict[str, Any]) -> None:
        name = body["user"]
        self.written[name] = 0
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        number = 0
        try:
            while body["max_tokens"] == 0 or number < body["max_tokens"]:
                data = event(number)
                writer.write(b"%x\r\n%b\r\n" % (len(data), data))
                await writer.drain()  # waits while the buffers on the way are full
                number += 1
                self.written[name] += len(data)
                await asyncio.sleep(0)
        except ConnectionError:
            self.left.add(name)
            raise
        writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        await writer.drain()


@asynccontextmanager
async def endless() -> AsyncIterator[Endless]:
    """One that listens on loopback, in this event loop."""
    made = Endless()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()
