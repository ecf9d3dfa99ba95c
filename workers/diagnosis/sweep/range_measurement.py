"""Turns the knob: all settings, or as many as the budget allows, each chosen where it shows most.

Several workers may turn the same knob: each takes what no one has, and all see what any has measured.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from app.contracts.request import Thresholds
from app.kinds.sweep.request import FormBounds
from workers.analysis.threshold.curve import FEWEST_POINTS
from workers.diagnosis.sweep.choice import first_look, next_by_knee, open_stretch, widest_gap
from workers.diagnosis.sweep.fits import MOST_LOG, bounds_of
from workers.measuring.points.record import PointRecord
from workers.measuring.points.runner import PointRunner, Setting

_POLL_S: Final = 0.2
# Loss of a whole point: mean over its tokens.
Losses = list[tuple[int, float]]


@dataclass(frozen=True)
class Range:
    """Settings in the order of their strength; `s` where the knob removes a share of the model. `ordered` is false if
    no order of strength is known."""

    settings: tuple[Setting, ...]
    s: tuple[float, ...] | None
    ordered: bool = True


class RangeMeasurement:
    """Measures settings of a range until the budget is spent."""

    def __init__(
        self,
        runner: PointRunner,
        over: Range,
        *,
        budget: int,
        bounds: FormBounds,
        thresholds: Thresholds,
        check_cancelled: Callable[[], None],
    ) -> None:
        self._runner, self._over, self._budget = runner, over, budget
        self._bounds, self._thresholds, self._check = bounds, thresholds, check_cancelled

    def run(self, *, wait: bool = True) -> dict[int, PointRecord]:
        """The points by the place of their setting in the range. Without `wait` this ends when nothing is left to be
        taken, though others may still be measuring."""
        count = len(self._over.settings)
        if self._budget >= count:
            return self._all(range(count), wait=wait)
        found = self._found()
        first = first_look(count, self._budget)
        if not set(first) <= set(found):
            found |= self._all(first, wait=True)
        while len(found) < self._budget:
            self._check()
            step = self._step()
            found = self._found()
            if step == "nothing is left" or (step == "others have it" and not wait):
                break
            if step == "others have it":
                time.sleep(_POLL_S)
        return found

    def _all(
        self, places: Sequence[int], *, wait: bool, claimed: Callable[[], None] = lambda: None
    ) -> dict[int, PointRecord]:
        records = self._runner.measure([self._over.settings[place] for place in places], wait=wait, claimed=claimed)
        return {place: record for place, record in zip(places, records, strict=True) if record is not None}

    def _found(self) -> dict[int, PointRecord]:
        records = {place: self._runner.found(setting) for place, setting in enumerate(self._over.settings)}
        return {place: record for place, record in records.items() if record is not None}

    def _step(self) -> Literal["measured", "others have it", "nothing is left"]:
        """Chooses a setting and measures it. One process chooses at a time, and counts what others are measuring as
        measured: the budget holds for all of them together."""
        turn = self._runner.turn()
        try:
            # In this order: what is finished in between counts as measured, not as nothing.
            busy = {place for place, setting in enumerate(self._over.settings) if self._runner.busy(setting)}
            found = self._found()
            busy -= set(found)
            while len(found) + len(busy) < self._budget:
                place = self._next(found, busy)
                if place is None:
                    break
                if self._all([place], wait=False, claimed=turn.release):
                    return "measured"
                busy.add(place)
        finally:
            turn.release()
        return "others have it" if busy else "nothing is left"

    def _next(self, found: dict[int, PointRecord], busy: set[int]) -> int | None:
        """Where the next measurement shows most; `busy` settings are as good as measured, but for their values."""
        s, count = self._over.s, len(self._over.settings)
        taken = sorted({*found, *busy})
        if s is not None and len(set(s)) > 1:
            place = self._by_share(s, found, taken)
            # Other settings of a share that was measured narrow no knee: they come last.
            return widest_gap(count, taken) if place is None else place
        halved = self._halving(found) if self._over.ordered and not busy else None
        return widest_gap(count, taken) if halved is None else halved

    def _by_share(self, s: Sequence[float], found: dict[int, PointRecord], taken: Sequence[int]) -> int | None:
        """The setting of a share that was not measured yet that shows most of the knee; None if all were."""
        count, seen = len(s), {s[place] for place in taken}
        closed = {place for place in range(count) if place in taken or s[place] in seen}
        # What is beyond what can be fitted shows nothing of the knee either.
        curve = {s[place]: (place, loss) for place, loss in _losses(found) if 0 < s[place] <= 1 and loss <= MOST_LOG}
        if len(curve) < FEWEST_POINTS:
            return widest_gap(count, sorted(closed))
        measured, loss_of = sorted(place for place, _ in curve.values()), dict(curve.values())
        kept = [place for place in range(count) if place not in closed or place in loss_of]
        chosen = next_by_knee(
            [s[place] for place in kept],
            [kept.index(place) for place in measured],
            [loss_of[place] for place in measured],
            bounds_of(self._bounds),
        )
        return None if chosen is None else kept[chosen]

    def _halving(self, found: dict[int, PointRecord]) -> int | None:
        """The middle of the run of settings among which damage stops being mild; None if its place is known as well as
        it can be."""
        measured = sorted(place for place, record in found.items() if not record.refused)
        stretch = open_stretch(measured, [self._mild(found[place]) for place in measured])
        if stretch is None:
            return None
        # Settings that the model does not take lie between, too.
        left = [place for place in range(stretch[0] + 1, stretch[1]) if place not in found]
        return left[(len(left) - 1) // 2] if left else None

    def _mild(self, record: PointRecord) -> bool:
        mean = record.excess_kl
        upper = math.inf if mean is None or mean.mean is None else mean.ci[1] if mean.ci else mean.mean
        return record.whole and upper < self._thresholds.moderate


def _losses(found: dict[int, PointRecord]) -> Losses:
    """Mean loss, which is ln perplexity, of the whole points."""
    return [
        (place, sum(record.sums.loss) / sum(record.sums.tokens))
        for place, record in found.items()
        if record.whole and record.sums is not None
    ]
