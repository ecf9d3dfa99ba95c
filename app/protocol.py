"""HTTP/1.1 in C, with the limits that uvicorn sets for its slower parser alone: bytes of a head, time, connections."""

import asyncio
import socket
from asyncio import TimerHandle
from typing import Any, ClassVar, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

MAX_HEAD: Final = 65_536  # bytes of request line and headers, and of what a body has between its chunks
MAX_HEADERS: Final = 128
MAX_PIPELINED: Final = 16
MAX_CONNECTIONS: Final = 1024
HEAD_S: Final = 10.0  # for a whole head, from the connection or its first byte on
BODY_S: Final = 30.0  # for a body, and a second more for each SLOWEST bytes
SLOWEST: Final = 65_536
UNREAD_S: Final = 90.0  # for a client that reads nothing of what was sent to it
# After each of these times: a process that stood still runs its timers before it reads what came meanwhile.
LAST_LOOK_S: Final = 0.1


class BoundedProtocol(HttpToolsProtocol):
    """A connection. It is closed when its request takes too long to come or its client reads nothing. If there are
    too many connections, the one that has waited longest is closed; those without a whole head come first."""

    # Those whose next request is not there yet or whose answer is not read, the one that has waited longest first.
    _waiting: ClassVar[dict["BoundedProtocol", None]] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timer: TimerHandle | None = None
        self._began = self.loop.time()  # of what is waited for
        self._grace_s = HEAD_S
        self._received = 0  # bytes of the body
        self._head = 0  # bytes since the parser last got on
        self._busy = False  # a body or an answer is under way

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Makes room for it."""
        super().connection_made(transport)  # type: ignore[arg-type]
        _end_unread(transport)
        self._await(HEAD_S)
        if len(self.connections) > MAX_CONNECTIONS:
            others = (one for one in self._waiting if one is not self)
            oldest = min(others, key=lambda one: one._busy, default=self)
            oldest._stop()
            self.connections.discard(oldest)
            oldest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        super().connection_lost(exc)
        self._stop()

    def data_received(self, data: bytes) -> None:
        """Parses piece by piece, so that no head becomes longer than it may be."""
        if self._timer is None and self in self._waiting:  # it was idle
            self._await(HEAD_S)
        for start in range(0, len(data), MAX_HEAD):
            piece = data[start : start + MAX_HEAD]
            self._head += len(piece)
            super().data_received(piece)
            if self._head > MAX_HEAD:
                self._refuse(431)
            if self.transport.is_closing():
                return

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        if self._timer is None:
            self._await(HEAD_S)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Counts them, those behind a body too. What is raised here is answered with 400."""
        if len(self.headers) >= MAX_HEADERS:
            raise ValueError("too many headers")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """A body begins, which may be empty."""
        if len(self.pipeline) >= MAX_PIPELINED:
            raise ValueError("too many requests at once")
        self._head = self._received = 0
        self._await(BODY_S)
        self._busy = True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Some of the body has come."""
        self._head = 0
        self._received += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is there."""
        self._head = 0
        self._stop()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """It is idle, unless more has come already."""
        super().on_response_complete()
        unread = self.transport.get_write_buffer_size() > 0
        if not self.pipeline and (unread or not self.transport.is_closing()):
            self._waiting.setdefault(self)
            self._busy = unread

    def pause_writing(self) -> None:
        """Its client does not read."""
        super().pause_writing()
        self._waiting.setdefault(self)
        self._busy = True

    def resume_writing(self) -> None:
        """Its client reads on."""
        super().resume_writing()
        cycle: RequestResponseCycle | None = self.cycle
        if self._timer is None and cycle is not None and not cycle.response_complete:
            self._stop()

    def _await(self, grace_s: float) -> None:
        self._stop()
        self._waiting[self] = None
        self._began, self._grace_s = self.loop.time(), grace_s
        self._timer = self.loop.call_later(grace_s, self._due)

    def _stop(self) -> None:
        self._waiting.pop(self, None)
        self._busy = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def timeout_keep_alive_handler(self) -> None:
        """The time for a next request is over."""
        self.timeout_keep_alive_task = self.loop.call_later(LAST_LOOK_S, super().timeout_keep_alive_handler)

    def _due(self) -> None:
        self._timer = self.loop.call_later(LAST_LOOK_S, self._late)

    def _late(self) -> None:
        left = self._began + self._grace_s + self._received / SLOWEST - self.loop.time()
        if self.flow.read_paused:  # it is we who wait
            self._await(self._grace_s)
        elif left > 0:
            self._timer = self.loop.call_later(left, self._due)
        else:
            self._refuse(408)

    def _refuse(self, status: int) -> None:
        """Answers, unless another answer has begun or nothing was sent at all."""
        cycle: RequestResponseCycle | None = self.cycle
        answering = cycle is not None and cycle.response_started and not cycle.response_complete
        if not (answering or self.pipeline) and (cycle is not None or self._head):
            self.transport.write(STATUS_LINE[status] + b"connection: close\r\ncontent-length: 0\r\n\r\n")
        self.transport.close()


def _end_unread(transport: asyncio.BaseTransport) -> None:
    """The kernel ends the connection if nothing of an answer is read; also after it was closed on our side."""
    one = transport.get_extra_info("socket")
    if one is not None and one.family != socket.AF_UNIX:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNREAD_S * 1000))
