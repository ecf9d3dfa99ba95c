"""Requests that were ended because their logits were no distribution, remembered for the gateway to ask."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import Final

MOST: Final = 10_000
EXPIRY_S: Final = 900.0


class EndedRequests:
    """Request id → why it was ended. The oldest go first. Written by the engine's thread, read by the door's."""

    def __init__(self, *, most: int = MOST, expiry_s: float = EXPIRY_S) -> None:
        self._most = most
        self._expiry_s = expiry_s
        self._ended: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, request: str, why: str) -> None:
        """Remembers one; without an id there is no one who could ask."""
        if not request:
            return
        with self._lock:
            self._ended[request] = (time.monotonic(), why)
            self._ended.move_to_end(request)
            self._forget()

    def why(self, request: str) -> str | None:
        """Why it was ended; None if it was not."""
        with self._lock:
            self._forget()
            found = self._ended.get(request)
        return found[1] if found else None

    def __len__(self) -> int:
        return len(self._ended)

    def _forget(self) -> None:
        oldest = time.monotonic() - self._expiry_s
        while self._ended and (len(self._ended) > self._most or next(iter(self._ended.values()))[0] < oldest):
            self._ended.popitem(last=False)
