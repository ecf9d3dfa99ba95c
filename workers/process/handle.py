"""The parent's end of the child process: start it, speak to it, end it for certain."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from workers.engine.environment import child_environment
from workers.process.messages import MAX_LINE_BYTES, FromChild, Ready, Shutdown, ToChild, decode_from_child, encode

logger = logging.getLogger(__name__)

# From exec to `Ready`; it imports only the standard library and pydantic until then, but a laptop may be busy.
START_TIMEOUT_S: Final = 60.0
# To write the stacks of its threads.
ABORT_S: Final = 5.0


class ChildStartError(Exception):
    """The child process did not come up."""


class ChildProcess:
    """A running child. It leads a process group of its own, so that `kill` takes what its engine started with it."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._garbled = False
        self._gone = False

    @classmethod
    async def start(cls, handlers: str, *, timeout_s: float = START_TIMEOUT_S) -> ChildProcess:
        """Starts a child that takes its jobs' code from `handlers` and waits until it listens.

        Raises `ChildStartError`.
        """
        ours, theirs = socket.socketpair()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "workers.process.child",
                *("--fd", str(theirs.fileno()), "--parent", str(os.getpid()), "--handlers", handlers),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=sys.stderr.fileno(),  # standard output belongs to no one: a library's print goes to the log
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                env=child_environment(),
            )
        except OSError as error:
            ours.close()
            raise ChildStartError(f"the engine's process could not be started: {error.strerror}") from error
        finally:
            theirs.close()
        reader, writer = await asyncio.open_connection(sock=ours, limit=MAX_LINE_BYTES)
        child = cls(process, reader, writer)
        try:
            first = await asyncio.wait_for(child.receive(), timeout_s)
        except TimeoutError:
            first = None
        except BaseException:
            await child.kill()
            raise
        if not isinstance(first, Ready):
            await child.kill()
            raise ChildStartError(f"the engine's process did not start (status {child.returncode})")
        return child

    @property
    def pid(self) -> int:
        """Process id, and id of the process group."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit status once it has ended (negative: killed by that signal); None if it runs or spoke nonsense."""
        return None if self._garbled else self._process.returncode

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.returncode is None and not self._reader.at_eof()

    def resident_bytes(self) -> int:
        """Resident memory of the process; 0 if it cannot be read."""
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1])
        except (OSError, ValueError, IndexError):
            return 0
        return pages * os.sysconf("SC_PAGE_SIZE")

    async def send(self, message: ToChild) -> None:
        """Sends a message; a child that is gone is noticed by `receive`."""
        with contextlib.suppress(ConnectionError):
            self._writer.write(encode(message))
            await self._writer.drain()

    async def receive(self) -> FromChild | None:
        """The next message, or None when the child is gone.

        A line that is no message means that the child's memory is no longer sound: it is killed.
        """
        try:
            line = await self._reader.readline()
            if line.endswith(b"\n"):
                return decode_from_child(line)
        except ConnectionError:
            pass
        except (ValidationError, ValueError):
            logger.error("the engine's process sent something that is no message; it is killed")  # noqa: TRY400
            self._garbled = True
        await self.kill()
        return None

    async def stop(self, timeout_s: float) -> None:
        """Asks the child to close its engine and exit; kills it after `timeout_s`."""
        await self.send(Shutdown())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), timeout_s)
        await self.kill()

    async def abort(self) -> None:
        """Ends a child that hangs. Its `faulthandler` writes where each thread is, without values, to the log first."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGABRT)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), ABORT_S)
        await self.kill()

    async def kill(self) -> None:
        """Ends the child and its process group now, and waits until it is gone."""
        if not self._gone:
            # Also when its leader is dead: the group lives on while an engine's own processes do.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        await self._process.wait()
        self._gone = True
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
