"""How a fit went."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from workers.calibration.fitting.spec import Setting

# takes phase, done, total
Progress = Callable[[str, int, int], None]


def no_progress(_phase: str, _done: int, _total: int) -> None:
    """Tells nobody."""


@dataclass(frozen=True)
class Step:
    """One look at the stop set: which kind was being fitted, after how many of its rounds, and the mean KL there."""

    kind: str
    round: int
    stop_kl: float


@dataclass(frozen=True)
class FitRecord:
    """Settings and course of a fit.

    `raw_kl` and `stop_kl` are the mean KL (nats) on the stop set before and after. `stopped_early` names the kinds
    whose last round was not their best.
    """

    name: str
    settings: dict[str, Setting]
    seed: int
    fit_rows: int
    stop_rows: int
    raw_kl: float
    stop_kl: float
    steps: tuple[Step, ...] = ()
    stopped_early: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
