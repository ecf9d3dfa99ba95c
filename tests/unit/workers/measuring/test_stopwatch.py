"""Seconds of each phase."""

import time
from pathlib import Path

import pytest

from app.settings import Settings
from tests.support.attempts import Context
from workers.measuring.attempt import Stopwatch


def test_a_phase_that_runs_twice_is_added_up_and_exported_twice_and_one_that_fails_is_not(tmp_path: Path) -> None:
    context = Context(Settings(home=tmp_path), tmp_path)
    watch = Stopwatch(context)
    began = time.perf_counter()
    for _ in range(2):
        with watch.phase("text"):
            time.sleep(0.02)
    assert 0.039 <= watch.seconds["text"] <= time.perf_counter() - began + 0.001
    with pytest.raises(ValueError, match="broke"), watch.phase("other"):
        raise ValueError("broke")
    assert [(name, labels) for name, _, labels in context.samples] == [("phase_seconds", {"phase": "text"})] * 2
    assert sum(value for _, value, _ in context.samples) == pytest.approx(watch.seconds["text"], abs=0.002)
