"""The most damaging of many parts within a budget: successive halving.

Every part is measured on a little of the text, the worse half on twice as much, and so on, until the last parts have
seen all of it. Sources: Karnin, Koren & Somekh (2013); Jamieson & Talwalkar (2016, arXiv 1502.07943). All parts see the
same text, so that its difficulty cancels between them. The number of steps follows from the budget before anything is
measured. So do the parts that may take part. How many parts go on also follows from their costs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Generic, TypeVar

T = TypeVar("T")
# What sums of costs may be off by where they were rounded.
_ROUNDED = 1e-9


@dataclass(frozen=True)
class Plan:
    """How many parts are measured up to how many batches, step by step; `cost` in whole measurements, were all parts
    alike."""

    steps: tuple[tuple[int, int], ...]
    cost: float

    @property
    def measurements(self) -> int:
        """How many there are at most: fewer go on where those that are left cost more than the budget has."""
        return sum(parts for parts, _ in self.steps)


@dataclass(frozen=True)
class Result(Generic[T]):
    """`batches`: how much of the text each part has seen; `scores` by it. `cost`: what was spent."""

    scores: dict[int, float]
    batches: dict[int, int]
    cost: float
    left_out: tuple[T, ...]


def plan(arms: int, batches: int, keep: int, halvings: int, shares: Sequence[float] | None = None) -> Plan:
    """`arms` parts, halved so often, `keep` of them to the end at least. `shares[n]`: what the first n batches are of
    the text; without them, batches of one size."""
    shares = shares or _alike(batches)
    steps: list[tuple[int, int]] = []
    cost, seen, left = 0.0, 0, arms
    for step in range(halvings + 1):
        upto = max(1, min(batches, round(batches / 2 ** (halvings - step))))
        if upto <= seen:
            continue
        cost += left * (shares[upto] - shares[seen])
        steps.append((left, upto))
        seen, left = upto, min(left, max(keep, ceil(left / 2)))
    return Plan(tuple(steps), cost)


def choose(
    costs: Sequence[float],
    batches: int,
    keep: int,
    budget: float,
    *,
    shares: Sequence[float] | None = None,
    evenly: bool = False,
) -> tuple[int, Plan]:
    """(how many of the parts are let in, in their order or `evenly` by `spread`; how they are halved): as few halvings
    as the budget allows. One part is let in whatever it costs. `costs` are of whole measurements.

    `evenly` lets all in where the budget reaches for the first step alone: fewer go on then than are planned.
    """
    shares = shares or _alike(batches)
    most = max(0, (batches - 1).bit_length())
    for arms in range(len(costs), 0, -1):
        mean = sum(costs[index] for index in _let_in(costs, arms, evenly)) / arms
        for halvings in range(most + 1):
            made = plan(arms, batches, keep, halvings, shares)
            if made.cost * mean <= budget:
                return arms, made
        if evenly and arms * mean * shares[made.steps[0][1]] <= budget + _ROUNDED:
            return arms, made
    return min(1, len(costs)), plan(min(1, len(costs)), batches, keep, most, shares)


def spread(costs: Sequence[float], count: int) -> list[int]:
    """So many of the parts from the first to the last, evenly; of one alone, the cheapest."""
    if count == 1:
        return [min(range(len(costs)), key=costs.__getitem__)]
    return [round(index * (len(costs) - 1) / (count - 1)) for index in range(count)]


def halve(
    arms: Sequence[T],
    costs: Sequence[float],
    measure: Callable[[T, int], float],
    *,
    batches: int,
    keep: int,
    budget: float,
    shares: Sequence[float] | None = None,
    evenly: bool = False,
    tell: Callable[[Plan], None] = lambda _: None,
) -> Result[T]:
    """Measures and drops until the last ones have seen every batch, or the budget is spent; more than it is spent only
    where it does not reach for one part. `measure(part, batches)` is its damage on the first so many; `arms` in the
    order in which they are worth a try, or, with `evenly`, all as much. `tell` is called with what will be measured at
    most, before anything is."""
    shares = shares or _alike(batches)
    count, made = choose(costs, batches, keep, budget, shares=shares, evenly=evenly)
    tell(made)
    alive = _let_in(costs, count, evenly)
    let_in = set(alive)
    scores: dict[int, float] = {}
    seen: dict[int, int] = {}
    # of the whole, what each step was planned to take
    ends = [0, *(upto for _, upto in made.steps)]
    planned = [limit * (shares[upto] - shares[before]) for (limit, upto), before in zip(made.steps, ends, strict=False)]
    left = budget
    for number, (_, upto) in enumerate(made.steps):
        for index in sorted(alive):
            scores[index] = measure(arms[index], upto)
            seen[index] = upto
        cost = sum(costs[index] for index in alive) * (shares[upto] - shares[ends[number]])
        left -= cost
        going: list[int] = []
        if number + 1 < len(made.steps):
            limit, following = made.steps[number + 1]
            ranked = sorted(alive, key=lambda index: (-scores[index], index))[:limit]
            allowed = left * planned[number + 1] / sum(planned[number + 1 :])
            each = shares[following] - shares[upto]
            going = affordable(ranked, [each * costs[index] for index in ranked], allowed, left)
        if not going:
            break
        alive = going
    left_out = tuple(arm for index, arm in enumerate(arms) if index not in let_in)
    return Result(scores, seen, budget - left, left_out)


def _alike(batches: int) -> list[float]:
    return [number / batches for number in range(batches + 1)]


def _let_in(costs: Sequence[float], count: int, evenly: bool) -> list[int]:
    return spread(costs, count) if evenly and count else list(range(count))


def affordable(ranked: Sequence[T], costs: Sequence[float], allowed: float, left: float) -> list[T]:
    """The first ones that together cost what is allowed at most; the first one alone, all that is left."""
    kept: list[T] = []
    total = 0.0
    for one, cost in zip(ranked, costs, strict=True):
        total += cost
        if total > (allowed if kept else left) + _ROUNDED:
            break
        kept.append(one)
    return kept
