"""The most damaging of many parts within a budget: successive halving.

Every part is measured on a little of the text, the worse half on twice as much, and so on, until the last ones have
seen all of it (Karnin, Koren & Somekh 2013; Jamieson & Talwalkar 2016, arXiv 1502.07943). All parts see the same text,
so what is hard about it cancels between them. How many steps are made, and where too many parts compete how many are
let in, follows from the budget before anything is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """How many parts are measured up to how many batches, step by step; `cost` in whole measurements."""

    steps: tuple[tuple[int, int], ...]
    cost: float


@dataclass(frozen=True)
class Step:
    """One step as it was made: `sites` parts measured on the first `batches`, `kept` of them go on."""

    sites: int
    batches: int
    kept: int
    cost: float


@dataclass(frozen=True)
class Result(Generic[T]):
    """`batches`: how much of the text each part has seen, `step` the last one that it was in; `scores` by it."""

    scores: dict[int, float]
    batches: dict[int, int]
    step: dict[int, int]
    steps: tuple[Step, ...]
    left_out: tuple[T, ...]

    @property
    def cost(self) -> float:
        """What was spent."""
        return sum(step.cost for step in self.steps)


def plan(arms: int, batches: int, keep: int, halvings: int) -> Plan:
    """`arms` parts, halved so often, `keep` of them to the end at least."""
    steps: list[tuple[int, int]] = []
    cost, seen, left = 0.0, 0, arms
    for step in range(halvings + 1):
        upto = max(1, min(batches, round(batches / 2 ** (halvings - step))))
        if upto <= seen:
            continue
        cost += left * (upto - seen) / batches
        steps.append((left, upto))
        seen, left = upto, min(left, max(keep, ceil(left / 2)))
    return Plan(tuple(steps), cost)


def choose(costs: Sequence[float], batches: int, keep: int, budget: float) -> tuple[int, Plan]:
    """(how many of the parts, in their order, are let in; how they are halved): as few halvings as the budget allows.
    One part is let in whatever it costs. `costs` are of whole measurements."""
    most = max(0, batches.bit_length() - 1)
    for arms in range(len(costs), 0, -1):
        mean = sum(costs[:arms]) / arms
        for halvings in range(most + 1):
            made = plan(arms, batches, keep, halvings)
            if made.cost * mean <= budget:
                return arms, made
    return min(1, len(costs)), plan(min(1, len(costs)), batches, keep, most)


def halve(
    arms: Sequence[T],
    costs: Sequence[float],
    measure: Callable[[T, int], float],
    *,
    batches: int,
    keep: int,
    budget: float,
) -> Result[T]:
    """Measures and drops until the last ones have seen every batch. `measure(part, batches)` is its damage on the first
    so many; `arms` in the order in which they are worth a try."""
    count, made = choose(costs, batches, keep, budget)
    alive = list(range(count))
    scores: dict[int, float] = {}
    seen: dict[int, int] = {}
    last: dict[int, int] = {}
    steps: list[Step] = []
    before = 0
    for number, (limit, upto) in enumerate(made.steps):
        alive = sorted(alive, key=lambda index: (-scores.get(index, 0.0), index))[:limit]
        for index in sorted(alive):
            scores[index] = measure(arms[index], upto)
            seen[index], last[index] = upto, number
        cost = sum(costs[index] for index in alive) * (upto - before) / batches
        kept = made.steps[number + 1][0] if number + 1 < len(made.steps) else len(alive)
        steps.append(Step(len(alive), upto, kept, cost))
        before = upto
    return Result(scores, seen, last, tuple(steps), tuple(arms[count:]))
