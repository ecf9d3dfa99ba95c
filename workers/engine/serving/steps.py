"""How long the running step of an engine takes: measured in its process, judged by the process that started it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

# vLLM's own name and default. Its executor for several processes heeds them, the one for a single process has no limit.
LIMIT_VARIABLE: Final = "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS"
LIMIT_S: Final = 300


class StepClock:
    """Read by other threads than the one whose steps it measures."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._began: float | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Around a step, or a part of one."""
        self._began = self._now()
        try:
            yield
        finally:
            self._began = None

    def seconds(self) -> float | None:
        """Since the running step began; None if none runs."""
        began = self._began
        return None if began is None else self._now() - began


STEP: Final = StepClock()  # an engine process has one engine


class StepWatch:
    """Shows from an engine's answers that it is stuck: a step has run, or no answer has come, for `limit_s`."""

    def __init__(self, limit_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._limit_s = limit_s
        self._now = now
        self._silent_since: float | None = None

    def look(self, told: Mapping[str, object] | None) -> str | None:
        """Why it is stuck, None if it is not. `told`: the door's answer to /livez, None if it gave none in time.

        Looked at again and again; time in which no one looked is no silence.
        """
        if told is None:
            if self._silent_since is None:
                self._silent_since = self._now()
            silent = self._now() - self._silent_since
            return f"the engine process has not answered for {silent:.0f} s" if silent >= self._limit_s else None
        self._silent_since = None
        step = told.get("step_s")
        if isinstance(step, int | float) and step >= self._limit_s:
            return f"a step of the model has been running for {step:.0f} s"
        return None


def limit_s(environment: Mapping[str, str] = os.environ) -> int:
    """Seconds that a step may take."""
    return int(environment.get(LIMIT_VARIABLE, LIMIT_S))
