"""The forward passes of a compare job: the reference's hidden states, and the candidate's values against them.

Windows stream through: a batch of the engine's is in memory, never the corpus. What is done is kept as it comes, and
between steps of the engine the job can be cancelled.

A GPU computes the values of a step while the host prepares the next one for the engine. They are read one step late,
and kept while it computes those of the next step. On a CPU they are there at once. A thread reads the reference's
hidden states a step ahead.

Names: T positions, D hidden size.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from workers.distributions.divergence import Divergence, Started
from workers.distributions.reference_store import ReferenceStore, StoredHidden
from workers.distributions.token_values import TokenValues
from workers.engine.launch import never
from workers.engine.scoring import ScoringEngine, Tokens
from workers.measuring.plan import Scratch
from workers.process.handler import JobContext
from workers.telemetry import SCORING_RATE
from workers.text.windows import Window

# Fewer tokens tell little of how fast a model is: one step of the engine takes as many.
TELLING_TOKENS = 2048
# Positions that the divergence is given at once; also the grain of resuming, a few seconds of work.
POSITIONS_AT_ONCE = 4096


def tokens_of(windows: Iterable[Window]) -> list[np.ndarray[tuple[int], np.dtype[np.int32]]]:
    """The tokens of each window, BOS included."""
    return [window.tokens for window in windows]


def score_into_store(
    engine: ScoringEngine,
    windows: Sequence[Window],
    *,
    store: ReferenceStore,
    key: str,
    meta: dict[str, object],
    context: JobContext,
    phase: str,
) -> StoredHidden:
    """Hidden states of every window into the store, going on where an earlier attempt was lost; shows how fast that was
    where it was long enough to tell."""
    tokens = tokens_of(windows)
    with store.write(key, [len(window) for window in tokens], engine.info.hidden_size, meta) as writer:
        done = writer.windows_done
        context.progress(phase, done, len(tokens))
        began = time.perf_counter()
        for index, hidden_TD in engine.score(tokens[done:], check_cancelled=context.check_cancelled):
            writer.append(hidden_TD)
            context.observe("tokens_scored", len(hidden_TD), role=phase)
            context.progress(phase, done + index + 1, len(tokens))
        passed, spent = sum(map(len, tokens[done:])), time.perf_counter() - began
    if passed >= TELLING_TOKENS:
        context.observe(SCORING_RATE, engine.info.parameters * passed / spent)
    stored = store.open(key)
    if stored is None:
        raise RuntimeError("hidden states that were just written cannot be read")
    return stored


@dataclass
class _Batch:
    """Scored positions of consecutive windows, on their way to the divergence."""

    reference: list[torch.Tensor] = field(default_factory=list)
    candidate: list[torch.Tensor] = field(default_factory=list)
    following: list[torch.Tensor] = field(default_factory=list)
    positions: int = 0

    def add(self, window: Window, reference_TD: torch.Tensor, candidate_TD: torch.Tensor) -> None:
        """Takes the scored positions of a window."""
        scored = np.flatnonzero(window.scored)
        rows = torch.from_numpy(scored)
        self.reference.append(reference_TD[rows])
        self.candidate.append(candidate_TD[rows])
        self.following.append(torch.from_numpy(window.tokens[scored + 1].astype(np.int64)))
        self.positions += scored.size

    def start(self, divergence: Divergence, check_cancelled: Callable[[], None]) -> Started:
        """Asks for their values."""
        states = torch.cat(self.reference), torch.cat(self.candidate)
        return divergence.start(*states, torch.cat(self.following), check_cancelled=check_cancelled)


class States(Protocol):
    """What gives hidden states of windows: an engine, or a store that has them."""

    def score(
        self, windows: Sequence[Tokens], *, batch: int | None = None, check_cancelled: Callable[[], None] = ...
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """As `ScoringEngine.score`."""


class StoredStates:
    """Hidden states that are on disk, in the place of an engine that would make them again."""

    def __init__(self, stored: StoredHidden) -> None:
        self._stored = stored

    def score(
        self, windows: Sequence[Tokens], *, batch: int | None = None, check_cancelled: Callable[[], None] = never
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """(index, hidden_TD) of each of `windows`, which are the last so many of what is stored."""
        first = len(self._stored) - len(windows)
        for index in range(len(windows)):
            check_cancelled()
            yield index, self._stored.window(first + index)


def _read_ahead(
    read: Callable[[int], torch.Tensor], lengths: Sequence[int], first: int
) -> Generator[torch.Tensor, None, None]:
    """What `read` gives for each window from `first` on, read in a thread, a step ahead of who takes it."""
    waiting: deque[tuple[int, Future[torch.Tensor]]] = deque()
    ahead = 0
    with ThreadPoolExecutor(1, "read-ahead") as thread:
        for number in range(first, len(lengths)):
            waiting.append((lengths[number], thread.submit(read, number)))
            ahead += lengths[number]
            while ahead > POSITIONS_AT_ONCE:
                rows, found = waiting.popleft()
                yield found.result()
                ahead -= rows
        for _, found in waiting:
            yield found.result()


def divergence_of(
    engine: States,
    windows: Sequence[Window],
    reference: Callable[[int], torch.Tensor],
    divergence: Divergence,
    *,
    context: JobContext,
    phase: str,
    scratch: Scratch | None = None,
    batch: int | None = None,
    counted: bool = True,
) -> tuple[TokenValues, int]:
    """Values of every scored position of `windows`, and how many windows were found in `scratch` from before.

    `reference(i)` gives the reference's hidden_TD of window i, to a thread. `batch` limits the windows of an engine
    step; `counted` is whether the tokens go through a model now, and are counted.
    """
    found = scratch.parts() if scratch else []
    parts = [values for _, _, values in found]
    resumed = found[-1][1] if found else 0
    context.progress(phase, resumed, len(windows))
    first, pending = resumed, _Batch()
    started: list[tuple[int, int, Started]] = []  # windows [first, last) of steps that are not kept

    def keep() -> None:
        begin, end, found = started.pop(0)
        values = found.values()
        if scratch:
            scratch.add(begin, end, values)
        parts.append(values)
        context.progress(phase, end, len(windows))

    def flush(last: int) -> None:
        nonlocal first, pending
        if pending.positions:
            started.append((first, last, pending.start(divergence, context.check_cancelled)))
        while len(started) > 1 or (started and started[0][2].ready):
            keep()
        first, pending = last, _Batch()

    tokens = tokens_of(windows)
    with closing(_read_ahead(reference, [*map(len, tokens)], resumed)) as references:
        for index, hidden_TD in engine.score(tokens[resumed:], batch=batch, check_cancelled=context.check_cancelled):
            number = resumed + index
            pending.add(windows[number], next(references), hidden_TD)
            if counted:
                context.observe("tokens_scored", len(hidden_TD), role=phase)
            if pending.positions >= POSITIONS_AT_ONCE:
                flush(number + 1)
    flush(len(windows))
    while started:
        keep()
    return TokenValues.concat(parts), resumed
