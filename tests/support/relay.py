"""A process that passes bytes on to a server, so that a test can kill a replica without losing the engine behind it.

python -m tests.support.relay PORT TARGET_PORT [BYTES]

BYTES: of each stream of events it passes on so many and no more before it gets SIGUSR1, so that a stream is in its
middle however fast the server is.
"""

import asyncio
import contextlib
import signal
import sys

STREAM = b"text/event-stream"


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _pass_on_held(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most: int, released: asyncio.Event
) -> None:
    """`_pass_on`, but for the rest of a stream."""
    left: int | None = None  # none of it until a stream begins
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            if left is None and STREAM in data:
                left = most
            if left is not None and not released.is_set():
                now, data = data[:left], data[left:]
                left -= len(now)
                writer.write(now)
                await writer.drain()
                if data or not left:
                    await released.wait()
            writer.write(data)
            await writer.drain()
    writer.close()


async def main(port: int, target: int, most: int | None) -> None:
    released = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, released.set)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", target)
        back = _pass_on(inner_reader, writer) if most is None else _pass_on_held(inner_reader, writer, most, released)
        await asyncio.gather(_pass_on(reader, inner_writer), back)

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None))
