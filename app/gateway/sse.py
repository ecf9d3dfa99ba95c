"""Server-sent events, cut out of a byte stream one by one.

The form is that of the HTML standard, section "Server-sent events". A blank line ends an event; lines may end in LF, CR
LF or CR. `data` lines are joined by LF, and a line that begins with a colon is a comment.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

MAX_EVENT_BYTES: Final = 32 * 1024 * 1024
DONE: Final = b"[DONE]"
KEEP_ALIVE: Final = b": keep-alive\n\n"


class EventTooLargeError(ValueError):
    """An event has not ended after `MAX_EVENT_BYTES`."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `name` is its `event` field, b"" where it has none."""

    data: bytes
    name: bytes = b""

    def encode(self) -> bytes:
        """As it is written to a stream."""
        data = b"\ndata: ".join(self.data.split(b"\n")) if b"\n" in self.data else self.data
        return (b"event: %b\ndata: %b\n\n" % (self.name, data)) if self.name else b"data: %b\n\n" % data


class Parser:
    """Feed it what comes in; it gives the events that are whole. A part of an event that never ends is never given."""

    def __init__(self, limit: int = MAX_EVENT_BYTES) -> None:
        self._limit = limit
        self._pending = bytearray()
        self._searched = 0  # of `_pending`, what is known to hold no blank line
        self._held = b""  # a CR at the end of a chunk: the LF may come with the next

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that this chunk completes. Raises EventTooLargeError."""
        if self._held or b"\r" in chunk:
            chunk = self._held + chunk
            self._held = b"\r" if chunk.endswith(b"\r") else b""
            chunk = chunk[: len(chunk) - len(self._held)].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        self._pending += chunk
        begin = 0
        while (end := self._pending.find(b"\n\n", max(begin, self._searched))) >= 0:
            event = _event(bytes(self._pending[begin:end]))
            begin = end + 2
            if event is not None:
                yield event
        del self._pending[:begin]
        self._searched = max(0, len(self._pending) - 1)
        if len(self._pending) > self._limit:
            raise EventTooLargeError(f"an event has more than {self._limit} bytes")


def _event(block: bytes) -> Event | None:
    """The event of a block of lines; None if it is comments or nothing."""
    if block.startswith(b"data: ") and b"\n" not in block:
        return Event(block[6:])
    name = b""
    data: list[bytes] = []
    for line in block.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    return Event(b"\n".join(data), name) if data else None
