"""How fast a pass over a text was, with an engine that a test plays."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch

from app.settings import Settings
from tests.support.attempts import Context
from workers.distributions.reference_store import ReferenceStore
from workers.engine.scoring import ScoringEngine, Tokens
from workers.measuring import passes
from workers.measuring.passes import TELLING_TOKENS, score_into_store
from workers.telemetry import SCORING_RATE
from workers.text.windows import Window

PARAMETERS, LENGTH, SECONDS = 1000, 512, 4.0


class Clock:
    """Moves by what each window takes."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


class Engine:
    """A window takes `SECONDS`; the job is lost before the window `lost_at`."""

    info = SimpleNamespace(hidden_size=4, parameters=PARAMETERS)

    def __init__(self, clock: Clock, lost_at: int | None = None) -> None:
        self.clock, self.lost_at = clock, lost_at

    def score(
        self, windows: Sequence[Tokens], *, check_cancelled: Callable[[], None]
    ) -> Iterator[tuple[int, torch.Tensor]]:
        for index, window in enumerate(windows):
            check_cancelled()
            if index == self.lost_at:
                raise ConnectionError
            self.clock.now += SECONDS
            yield index, torch.zeros(len(window), 4, dtype=torch.bfloat16)


def rates(windows: int, folder: Path, monkeypatch: pytest.MonkeyPatch, lost_at: int | None = None) -> list[float]:
    """What was told of a pass over so many windows, after an attempt that was lost."""
    clock = Clock()
    monkeypatch.setattr(passes, "time", clock)
    context = Context(Settings(home=folder), folder)
    tokens = np.arange(LENGTH, dtype=np.int32)
    text = [Window(document=0, tokens=tokens, scored=np.ones(LENGTH - 1, dtype=bool), start=0)] * windows
    store = ReferenceStore(folder / "store", 2**30)
    for lost in dict.fromkeys((lost_at, None)):
        engine = cast(ScoringEngine, Engine(clock, lost))
        try:
            score_into_store(engine, text, store=store, key="k", meta={}, context=context, phase="reference")
        except ConnectionError:
            assert lost is not None
    return [value for name, value, _ in context.samples if name == SCORING_RATE]


def test_a_pass_tells_parameters_times_tokens_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rates(8, tmp_path, monkeypatch) == [pytest.approx(PARAMETERS * LENGTH / SECONDS)]


def test_what_an_attempt_found_done_is_not_counted_as_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rates(8, tmp_path, monkeypatch, lost_at=3) == [pytest.approx(PARAMETERS * LENGTH / SECONDS)]


def test_a_pass_too_short_to_tell_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rates(TELLING_TOKENS // LENGTH - 1, tmp_path, monkeypatch) == []
