"""Seconds of each phase."""

import time
from typing import Any

import pytest

from workers.measuring.attempt import Stopwatch


class Samples:
    """Keeps what is exported."""

    def __init__(self) -> None:
        self.found: list[tuple[str, float, dict[str, str]]] = []

    def observe(self, name: str, value: float, **labels: str) -> None:
        self.found.append((name, value, labels))


def test_a_phase_that_runs_twice_is_added_up_and_exported_twice() -> None:
    samples: Any = Samples()
    watch = Stopwatch(samples)
    began = time.perf_counter()
    for _ in range(2):
        with watch.phase("text"):
            time.sleep(0.02)
    assert 0.039 <= watch.seconds["text"] <= time.perf_counter() - began + 0.001
    assert [(name, labels) for name, _, labels in samples.found] == [("phase_seconds", {"phase": "text"})] * 2
    assert sum(value for _, value, _ in samples.found) == pytest.approx(watch.seconds["text"], abs=0.002)


def test_a_phase_that_fails_is_not_counted() -> None:
    samples: Any = Samples()
    watch = Stopwatch(samples)
    with pytest.raises(ValueError, match="broke"), watch.phase("text"):
        raise ValueError("broke")
    assert samples.found == []
    assert watch.seconds == {}
