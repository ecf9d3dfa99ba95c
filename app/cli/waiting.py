"""What a queued job waits for, said beside its progress while it waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from app.cli.client import Client
from app.contracts.errors import HemostatError
from app.web.turn import SETTLE_S, turn

Json = dict[str, Any]

LOOK_S: Final = 2.0


class Waiting:
    """Says, while `begin` is in force, which jobs come before `job_id`: at once, and again when that changes.

    It asks from a thread of its own, because the job's events are silent while it waits.
    """

    def __init__(self, client: Client, job_id: str, say: Callable[[str], None], *, look_s: float = LOOK_S) -> None:
        self._client = client
        self._job_id = job_id
        self._say = say
        self._look_s = look_s
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._said = ""

    def begin(self) -> None:
        """Nothing where it has begun."""
        if self._thread is None:
            self._ended = threading.Event()
            self._thread = threading.Thread(target=self._run, args=(self._ended,), name="waiting", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """It waits no more; `begin` may follow where its worker was lost."""
        self._ended.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(timeout=1)

    def _run(self, ended: threading.Event) -> None:
        began = time.monotonic()
        while not ended.is_set():
            try:
                line = self._line(settled=time.monotonic() - began >= SETTLE_S)
            except (HemostatError, RuntimeError):
                line = ""  # the service is away, which the events tell; or the client is closed, and no one listens
            if line and line != self._said and not ended.is_set():
                self._said = line
                self._say(line)
            ended.wait(self._look_s)

    def _line(self, *, settled: bool) -> str:
        if self._client.job(self._job_id)["status"] != "queued":
            return ""
        found = self._client.queue(self._job_id)
        return describe(found["before"], found["first"], settled=settled)


def describe(before: int, first: Sequence[Json], *, settled: bool = True) -> str:
    """As `turn`, with what it is about."""
    told = turn(before, first, settled=settled)
    return f"queued: {told}" if told else ""
