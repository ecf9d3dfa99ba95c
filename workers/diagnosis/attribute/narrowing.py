"""The most damaging of a model's layers within a budget, all of them looked at: spans, and halves of the worse ones.

Successive halving (`halving`) drops parts after a little of the text. Where every measurement needs all of the text, as
one through a map that is fitted on it does, layers are put together instead: rows of them are cut into spans of so many
that the budget reaches for all, the half of the spans that cost more is cut in two, and so on down to single layers. So
no layer is left out, and every number is of the same tokens; damage that layers of a span undo in each other is missed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

from workers.diagnosis.attribute.halving import affordable

# Layers in a row, by their places in what is narrowed down.
Span = range
Cost = Callable[[Span], float]
# Worse ones are greater.
Score = tuple[bool, float]


@dataclass(frozen=True)
class Plan:
    """Spans of at most `longest` layers at first; `costs` of each step at most, whichever spans go on."""

    longest: int
    spans: tuple[Span, ...]
    costs: tuple[float, ...]

    @property
    def measurements(self) -> int:
        """How many there are at most."""
        steps = len(self.costs)
        return len(self.spans) + sum(2 * ceil(len(self.spans) / 2) for _ in range(steps - 1))


@dataclass(frozen=True)
class Step:
    """One step as it was made: `spans` measured, `split` of them went on in halves."""

    spans: int
    longest: int
    split: int
    cost: float


@dataclass(frozen=True)
class Narrowed:
    """`measured`: all spans that were, a span before its halves, `split` those of them that were cut; `untried`: what
    the budget did not reach for at all."""

    measured: tuple[Span, ...]
    split: frozenset[Span]
    untried: tuple[Span, ...]
    steps: tuple[Step, ...]


def plan(rows: Sequence[Span], cost: Cost, budget: float) -> Plan:
    """The shortest spans that the budget reaches for down to single layers; else the shortest of which it reaches for
    all, else the longest. `rows`: layers that stand side by side, each at least one."""
    longest = max(map(len, rows))
    # halves of pairs cost as much as all single layers do from the start
    lengths = [1, *(2**power for power in range(2, (longest - 1).bit_length() + 1))]
    plans = [_plan(rows, cost, length) for length in lengths]
    enough = [made for made in plans if sum(made.costs) <= budget]
    begun = [made for made in plans if made.costs[0] <= budget]
    return next(iter(enough or begun), plans[-1])


def narrow(
    rows: Sequence[Span],
    cost: Cost,
    measure: Callable[[Span, Span | None], Score],
    *,
    budget: float,
    tell: Callable[[Plan], None] = lambda _: None,
) -> Narrowed:
    """Measures and cuts until single layers are left of the worst, or the budget is spent, which is not overdrawn.
    `measure(span, whole)` is how bad one is, `whole` what it is a half of; `tell` is called with the plan before
    anything is measured."""
    made = plan(rows, cost, budget)
    tell(made)
    current = affordable(made.spans, [cost(span) for span in made.spans], budget, budget)
    untried = tuple(made.spans[len(current) :])
    whole: dict[Span, Span] = {}
    measured: list[Span] = []
    split: set[Span] = set()
    steps: list[Step] = []
    left = budget
    for number in range(len(made.costs)):
        scores = {span: measure(span, whole.get(span)) for span in current}
        measured += current
        spent = sum(cost(span) for span in current)
        left -= spent
        worst = sorted((span for span in current if len(span) > 1), key=lambda span: scores[span], reverse=True)
        worst = worst[: ceil(len(current) / 2)]
        later = made.costs[number + 1 :]
        allowed = left * later[0] / sum(later) if later else 0.0
        going = affordable(worst, [sum(map(cost, _cut(span, 2))) for span in worst], allowed, left) if later else []
        steps.append(Step(len(current), max(map(len, current), default=0), len(going), spent))
        if not going:
            break
        split.update(going)
        whole = {half: span for span in going for half in _cut(span, 2)}
        current = sorted(whole, key=lambda span: span.start)
    measured.sort(key=lambda span: (span.start, -span.stop))
    return Narrowed(tuple(measured), frozenset(split), untried, tuple(steps))


def _cut(row: Span, pieces: int) -> list[Span]:
    """A row in so many pieces, as even as can be."""
    ends = [row.start + round(number * len(row) / pieces) for number in range(pieces + 1)]
    return [range(start, end) for start, end in pairwise(ends)]


def _plan(rows: Sequence[Span], cost: Cost, longest: int) -> Plan:
    spans = tuple(piece for row in rows for piece in _cut(row, ceil(len(row) / longest)))
    costs = [sum(map(cost, spans))]
    step = spans
    while max(map(len, step)) > 1:
        step = tuple(half for span in step for half in (_cut(span, 2) if len(span) > 1 else ()))
        dearest = sorted(map(cost, step), reverse=True)[: 2 * ceil(len(spans) / 2)]
        costs.append(sum(dearest))
    return Plan(longest, spans, tuple(costs))
