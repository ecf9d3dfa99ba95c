"""How many directions each module gets: those that save the most nats a byte, until the mean rank is used up.

A direction of a module costs (inputs + outputs) numbers. The nats that each saves come from the closed form and fall
within a module. So taking the best of all again and again is the optimum of their sum. A floor keeps a part of the rank
in every module, for distillation to use where the closed form sees nothing; what the known gains leave over is spread
evenly.
"""

import heapq
from collections.abc import Mapping, Sequence


def budget_of(costs: Mapping[str, int], mean_rank: int) -> int:
    """Numbers that all modules together may take: those of `mean_rank` in each."""
    return mean_rank * sum(costs.values())


def allocate(
    gains: Mapping[str, Sequence[float]],
    costs: Mapping[str, int],
    limits: Mapping[str, int],
    budget: int,
    *,
    floor: int = 0,
) -> dict[str, int]:
    """Directions of each module.

    `gains`: falling, of the directions whose saving is known; `costs`: numbers that one direction takes. `limits`: the
    most that a module may have; `floor`: the least, as far as its limit and the budget allow. The sum never exceeds
    `budget`, and what is left of it is less than any further direction would take. Ties go to the module named first.
    """
    ranks = dict.fromkeys(gains, 0)
    left = budget
    for name in ranks:
        ranks[name] = min(floor, limits[name], left // costs[name])
        left -= ranks[name] * costs[name]
    left = _greedy(ranks, gains, costs, limits, left)
    _evenly(ranks, costs, limits, left)
    return ranks


def _greedy(
    ranks: dict[str, int],
    gains: Mapping[str, Sequence[float]],
    costs: Mapping[str, int],
    limits: Mapping[str, int],
    left: int,
) -> int:
    heap: list[tuple[float, int, str]] = []

    def push(index: int, name: str) -> None:
        if ranks[name] < min(limits[name], len(gains[name])):
            heapq.heappush(heap, (-gains[name][ranks[name]] / costs[name], index, name))

    for index, name in enumerate(ranks):
        push(index, name)
    while heap:
        _, index, name = heapq.heappop(heap)
        if costs[name] <= left:  # else it will not fit later either
            left -= costs[name]
            ranks[name] += 1
            push(index, name)
    return left


def _evenly(ranks: dict[str, int], costs: Mapping[str, int], limits: Mapping[str, int], left: int) -> None:
    heap = [(rank, index, name) for index, (name, rank) in enumerate(ranks.items()) if rank < limits[name]]
    heapq.heapify(heap)
    while heap:
        _, index, name = heapq.heappop(heap)
        if costs[name] <= left:
            left -= costs[name]
            ranks[name] += 1
            if ranks[name] < limits[name]:
                heapq.heappush(heap, (ranks[name], index, name))
