"""A prediction that knows what it rests on: nothing, little, or runs like this one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

import numpy as np

from workers.analysis.flips.model import FlipModel, fit
from workers.analysis.flips.runs import Run
from workers.analysis.numerals import numeral

Status = Literal["none", "few", "outside", "seen"]
# Fewer runs than this are few: the interval is then mostly the prior's.
FEWEST_RUNS: Final = 6
# Runs of so many tasks, before anything is reported of a task that was not seen.
FEWEST_TASKS: Final = 3
# KL may lie so far beyond what was seen, as a factor, and still count as seen.
REACH: Final = 1.5
# The beginning of a fingerprint must have so many digits to stand for it.
LEAST_DIGITS: Final = 8
# The most recent runs; the fit takes the cube of the number of their tasks.
MOST_RUNS: Final = 200


@dataclass(frozen=True)
class Prediction:
    """The flip rate of a run of `items` items at `kl` nats: median and 95 % prediction interval (null with no run)."""

    status: Status
    rate: float | None
    interval: tuple[float, float] | None
    runs: int
    tasks: int
    kl_range: tuple[float, float] | None
    known_task: bool
    sentence: str


class Predictor:
    """Predictions from a set of runs; the model is fitted when it is first needed."""

    def __init__(self, runs: Sequence[Run]) -> None:
        usable = sorted((run for run in runs if run.usable), key=lambda run: run.finished_at)
        self.runs = usable[-MOST_RUNS:]
        self._model: FlipModel | None = None

    @property
    def model(self) -> FlipModel:
        """The fitted model. Raises ValueError if there is no run."""
        if self._model is None:
            self._model = fit(self.runs)
        return self._model

    def task(self, named: str) -> str | None:
        """The identity of a task by its name, or by the fingerprint of its items or of what they were drawn from; of
        several tasks of a name the latest. Eight digits of a fingerprint will do, where they begin no other task's.
        None if none was seen."""
        by_name = [run.identity for run in self.runs if run.task == named]
        if by_name:
            return by_name[-1]
        exact = [run.identity for run in self.runs if named in {run.fingerprint, run.identity}]
        if exact:
            return exact[-1]
        if len(named) < LEAST_DIGITS:
            return None
        begun = {
            run.identity for run in self.runs if any(one.startswith(named) for one in (run.fingerprint, run.identity))
        }
        return begun.pop() if len(begun) == 1 else None

    def predict(
        self, kl: float, items: int, *, task: str | None = None, reference: str | None = None, seed: int = 0
    ) -> Prediction:
        """`task` is an identity, None a task of which nothing is known; `reference` the unmodified model that it is
        asked of, by its weights, None if that is not told. Raises ValueError for a KL that is not
        positive, or no item."""
        if not kl > 0 or not np.isfinite(kl) or items < 1:
            raise ValueError("a flip rate is predicted for a KL above zero and one item at least")
        own = [run for run in self.runs if task is not None and run.identity == task]
        tasks = len({run.identity for run in self.runs})
        if not self.runs:
            told = (
                "Nothing is predicted: no run to learn from has been seen. Jobs of kind tasks on other candidates add "
                "to what is seen."
            )
            return Prediction("none", None, None, 0, 0, None, known_task=False, sentence=told)
        low, median, high = self.model.predict(kl, items, task=task, seed=seed)
        basis = own or self.runs
        seen = (min(run.kl for run in basis), max(run.kl for run in basis))
        others = reference is not None and self._others_alone(basis, reference)
        status, why = self._status(kl, seen, tasks, named=task is not None, known=bool(own), others=others)
        # The range is that of the task's own runs, the runs before it are all that the fit is of.
        among = f", of which {len(own)} of this task" if 0 < len(own) < len(self.runs) else ""
        told = (
            f"{numeral(100 * median)} % of {items:,} items are expected to flip (95 % prediction interval "
            f"{numeral(100 * low)} to {numeral(100 * high)} %), from {len(self.runs)} run{_s(len(self.runs))} "
            f"of {tasks} task{_s(tasks)}{among}{why}"
        )
        return Prediction(status, median, (low, high), len(self.runs), tasks, seen, known_task=bool(own), sentence=told)

    @staticmethod
    def _others_alone(runs: Sequence[Run], reference: str) -> bool:
        """Whether these runs are all of other unmodified models, whose answers may lie nearer to the border or further
        from it. Runs that do not tell theirs are left out."""
        known = {run.reference for run in runs if run.reference}
        return bool(known) and reference not in known

    def _status(
        self, kl: float, seen: tuple[float, float], tasks: int, *, named: bool, known: bool, others: bool
    ) -> tuple[Status, str]:
        if not known and tasks < FEWEST_TASKS:
            missing = "no run of this task is among them" if named else "no task is named"
            return "outside", (
                f": outside what has been seen, for {missing} and "
                f"{'one task does' if tasks == 1 else f'{tasks} tasks do'} not tell how tasks differ."
            )
        whose = " of this task" if known else ""
        if others:
            return "outside", f": outside what has been seen{whose}, for none of these runs is of this reference model."
        if not seen[0] / REACH <= kl <= seen[1] * REACH:
            return "outside", f": outside what has been seen{whose}, which is {_nats(seen)}."
        if len(self.runs) < FEWEST_RUNS:
            return "few", (f": few, so that much of this is what was assumed beforehand ({FEWEST_RUNS} are needed).")
        return "seen", f", at {_nats(seen)}."


def _s(count: int) -> str:
    return "" if count == 1 else "s"


def _nats(seen: tuple[float, float]) -> str:
    low, high = (numeral(kl) for kl in seen)
    return f"{low} nats" if low == high else f"{low} to {high} nats"


@lru_cache(maxsize=8)
def grid(low: float, high: float, points: int = 25) -> tuple[float, ...]:
    """KL values evenly spaced on a logarithmic axis, for a curve."""
    return tuple(float(value) for value in np.geomspace(low, high, points))
