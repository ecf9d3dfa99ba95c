"""How fast a pass over a text was, and what goes on at the same time, with an engine that a test plays."""

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch

from app.settings import Settings
from tests.support.attempts import Context
from tests.support.distributions import disturbed, hidden_states, make_head
from workers.distributions.divergence import Divergence, Started
from workers.distributions.reference_store import ReferenceStore
from workers.distributions.token_values import FIELDS, TokenValues
from workers.engine.scoring import ScoringEngine, Tokens
from workers.measuring import passes
from workers.measuring.passes import TELLING_TOKENS, divergence_of, score_into_store
from workers.measuring.plan import Scratch
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


@pytest.fixture
def eager() -> Iterator[None]:
    """What is wrapped in torch.compile runs as it is written."""
    with torch.compiler.set_stance("force_eager"):
        yield


HEAD = make_head(300, 16, spread=3.0)
# Of positions that are computed at once.
STEP = 2 * (LENGTH - 1)


class Order:
    """What was asked for and when, of a divergence that computes on a processor but is ready when it is waited for."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.divergence = Divergence(HEAD, HEAD, device="cpu")
        self.steps = 0

    def score(
        self, windows: Sequence[Tokens], *, batch: int | None = None, check_cancelled: Callable[[], None]
    ) -> Iterator[tuple[int, torch.Tensor]]:
        for index, window in enumerate(windows):
            self.seen.append(f"score {index}")
            yield index, disturbed(reference(index)[: len(window)], 0.05)

    def start(self, *given: torch.Tensor, check_cancelled: Callable[[], None]) -> "Later":
        self.seen.append(f"start {self.steps}")
        self.steps += 1
        return Later(self, self.steps - 1, self.divergence.start(*given, check_cancelled=check_cancelled))


class Later(Started):
    """Values of a device that is still at work until somebody waits."""

    def __init__(self, order: Order, step: int, found: Started) -> None:
        self.order, self.step, self.found = order, step, found

    @property
    def ready(self) -> bool:
        return False

    def values(self) -> TokenValues:
        self.order.seen.append(f"values {self.step}")
        return self.found.values()


def reference(index: int) -> torch.Tensor:
    return hidden_states(LENGTH, 16, seed=index)


def corpus(windows: int) -> list[Window]:
    tokens = np.arange(LENGTH, dtype=np.int32) % 300
    return [Window(document=0, tokens=tokens, scored=np.ones(LENGTH - 1, dtype=bool), start=0)] * windows


@pytest.mark.usefixtures("eager")
def test_values_of_a_step_are_read_while_those_of_the_next_are_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five windows, two of them a step: the host waits for a step when the next one is scored and begun."""
    monkeypatch.setattr(passes, "POSITIONS_AT_ONCE", STEP)
    order, context = Order(), Context(Settings(home=tmp_path), tmp_path)
    scratch = Scratch.open(tmp_path / "scratch", "plan")
    found, resumed = divergence_of(
        order, corpus(5), reference, cast(Divergence, order), context=context, phase="candidate", scratch=scratch
    )
    began = ["score 0", "score 1", "start 0", "score 2", "score 3", "start 1", "values 0"]
    assert order.seen == [*began, "score 4", "start 2", "values 1", "values 2"]
    assert resumed == 0
    assert [(begin, end) for begin, end, _ in scratch.parts()] == [(0, 2), (2, 4), (4, 5)]
    at_once, _ = divergence_of(Order(), corpus(5), reference, order.divergence, context=context, phase="candidate")
    for name in FIELDS:
        assert np.array_equal(getattr(found, name), getattr(at_once, name)), name


def test_what_is_on_disk_is_read_a_step_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four windows of 10 rows, of which two are a step: who took one finds the next two read, and no more of them."""
    monkeypatch.setattr(passes, "POSITIONS_AT_ONCE", 20)
    began = [threading.Event() for _ in range(4)]

    def read(number: int) -> torch.Tensor:
        began[number].set()
        return torch.tensor(number)

    taken = passes._read_ahead(read, [10] * 4, 0)
    assert int(next(taken)) == 0
    assert began[2].wait(60)
    assert not began[3].is_set()
    assert [int(one) for one in taken] == [1, 2, 3]
    assert [int(one) for one in passes._read_ahead(read, [10] * 4, 3)] == [3]
    assert list(passes._read_ahead(read, [10] * 4, 4)) == []


def test_states_that_cannot_be_read_stop_the_pass(tmp_path: Path) -> None:
    def read(number: int) -> torch.Tensor:
        raise OSError(f"window {number}")

    context = Context(Settings(home=tmp_path), tmp_path)
    with pytest.raises(OSError, match="window 0"):
        divergence_of(Order(), corpus(3), read, Order().divergence, context=context, phase="candidate")


@pytest.mark.usefixtures("eager")
def test_on_a_cpu_a_step_that_is_computed_is_kept_before_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passes, "POSITIONS_AT_ONCE", STEP)
    context, divergence = Context(Settings(home=tmp_path), tmp_path), Divergence(HEAD, HEAD, device="cpu")
    scratch, kept = Scratch.open(tmp_path / "scratch", "plan"), []

    class Watched(Order):
        def score(
            self, windows: Sequence[Tokens], *, batch: int | None = None, check_cancelled: Callable[[], None]
        ) -> Iterator[tuple[int, torch.Tensor]]:
            for one in super().score(windows, batch=batch, check_cancelled=check_cancelled):
                kept.append(len(scratch.parts()))
                yield one

    divergence_of(Watched(), corpus(4), reference, divergence, context=context, phase="candidate", scratch=scratch)
    assert kept == [0, 0, 1, 1]
    assert len(scratch.parts()) == 2
