"""Bits given to modules: those first that save the most nats for a bit of storage.

A unit is what must share a scheme: layers that an engine runs as one product (q, k, v; gate, up), or a single layer.
Every unit begins with the least storage; the step up that saves the most nats a bit of storage is taken until none
fits. Steps that a better one behind them makes pointless are left out (the lower convex hull of nats over storage), so
that greedy is optimal to one unit's step. A choice that was measured to cost more than a smaller one goes with them.
Storage counts scales and zero points.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Choice:
    """A unit with `bits`: its `storage` in bits, and `nats` that it costs."""

    bits: int
    storage: float
    nats: float


def allocate(units: Mapping[str, Sequence[Choice]], storage: float) -> dict[str, Choice]:
    """Unit → what it has, together within `storage`. Raises ValueError if even the least of each is beyond it."""
    hulls = {unit: hull(choices) for unit, choices in units.items()}
    taken = dict.fromkeys(hulls, 0)
    used = sum(choices[0].storage for choices in hulls.values())
    if used > storage * (1 + 1e-9):
        raise ValueError("the fewest bits are beyond the budget")
    steps = sorted(
        (
            ((low.nats - high.nats) / (high.storage - low.storage), unit, level)
            for unit, choices in hulls.items()
            for level, (low, high) in enumerate(pairwise(choices), 1)
        ),
        key=lambda one: (-one[0], one[2], one[1]),
    )
    for _, unit, level in steps:
        more = hulls[unit][level].storage - hulls[unit][taken[unit]].storage
        if level == taken[unit] + 1 and used + more <= storage * (1 + 1e-9):
            taken[unit], used = level, used + more
    return {unit: hulls[unit][level] for unit, level in taken.items()}


def hull(choices: Sequence[Choice]) -> list[Choice]:
    """The lower convex hull of nats over storage, from the least storage on; nats falls along it."""
    found: list[Choice] = []
    for choice in sorted(choices, key=lambda one: (one.storage, one.nats)):
        if found and choice.nats >= found[-1].nats:
            continue
        while len(found) > 1 and _slope(found[-2], choice) <= _slope(found[-2], found[-1]):
            found.pop()
        found.append(choice)
    return found


def _slope(low: Choice, high: Choice) -> float:
    return (high.nats - low.nats) / (high.storage - low.storage)
