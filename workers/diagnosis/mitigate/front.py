"""The Pareto front of what was measured in full, and which of it is recommended. Arithmetic alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from app.contracts.report import Mean
from app.kinds.mitigate.report import Limits
from app.kinds.mitigate.request import Budget

# What the treated model may take where the budget names no size, as a multiple of the candidate's bytes.
DEFAULT_GROWTH: Final = 1.25
# Recipes this close to the lowest KL are as good; the one of fewest bytes is then recommended.
CLOSE: Final = 0.05
MOST_POINTS: Final = 6

RULE: Final = (
    "Only recipes within the budget count whose saved KL has an interval above zero on the documents to choose by. Of "
    f"those within {CLOSE:.0%} of the lowest KL, the one of fewest bytes is recommended."
).replace("%", " %")


@dataclass(frozen=True)
class Point:
    """A recipe as it was measured in full on the documents to choose by. `saved` is None for the candidate itself."""

    key: str
    kl: float
    bytes: int
    bits_per_weight: float
    saved: Mean | None
    added_latency: float | None


def limits_of(budget: Budget, candidate_bytes: int) -> Limits:
    """The limits that hold: those given, or the default where no size is."""
    by_default = budget.bytes is None and budget.bits_per_weight is None
    return Limits(
        bytes=int(candidate_bytes * DEFAULT_GROWTH) if by_default else budget.bytes,
        bits_per_weight=budget.bits_per_weight,
        added_latency=budget.added_latency,
        by_default=by_default,
    )


def broken(limits: Limits, *, size: float, bits: float, latency: float | None) -> str:
    """Which limit is broken, in words; empty if none is."""
    if limits.bytes is not None and size > limits.bytes:
        return f"it takes {round(size):,} bytes, the budget is {limits.bytes:,}"
    if limits.bits_per_weight is not None and bits > limits.bits_per_weight + 1e-9:
        return f"it takes {bits:.4g} bits per weight, the budget is {limits.bits_per_weight:.4g}"
    if limits.added_latency is not None and latency is not None and latency > limits.added_latency:
        return f"a token takes {100 * latency:.3g} % longer, the budget is {100 * limits.added_latency:.3g} %"
    return ""


def front_of(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats in bytes and KL, fewest bytes first."""
    front: list[Point] = []
    for point in sorted(points, key=lambda one: (one.bytes, one.kl, one.key)):
        if not front or point.kl < front[-1].kl:
            front.append(point)
    return front


def feasible(points: Sequence[Point], limits: Limits) -> list[Point]:
    """Those within the budget, and the candidate itself whatever it takes: what is beyond the budget beats nothing."""
    return [
        point
        for point in points
        if point.saved is None
        or not broken(limits, size=point.bytes, bits=point.bits_per_weight, latency=point.added_latency)
    ]


def recommend(front: Sequence[Point], limits: Limits) -> Point | None:
    """The recommended point by `RULE`; None if nothing helps within the budget."""
    helpful = [
        point
        for point in front
        if point.saved is not None
        and point.saved.ci is not None
        and point.saved.ci[0] > 0
        and not broken(limits, size=point.bytes, bits=point.bits_per_weight, latency=point.added_latency)
    ]
    if not helpful:
        return None
    lowest = min(point.kl for point in helpful)
    return min(
        (point for point in helpful if point.kl <= lowest * (1 + CLOSE)), key=lambda point: (point.bytes, point.kl)
    )


def thinned(front: Sequence[Point], keep: Point | None) -> list[Point]:
    """At most `MOST_POINTS` of them, spread over the front, its ends and `keep` among them: each costs a reading of the
    test."""
    if len(front) <= MOST_POINTS:
        return list(front)
    places = {round(index * (len(front) - 1) / (MOST_POINTS - 1)) for index in range(MOST_POINTS)}
    if keep is not None:
        mine = next(index for index, point in enumerate(front) if point.key == keep.key)
        if mine not in places:
            inner = [place for place in places if 0 < place < len(front) - 1]
            places.remove(min(inner, key=lambda place: abs(place - mine)))
            places.add(mine)
    return [front[place] for place in sorted(places)]
