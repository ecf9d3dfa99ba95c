"""Whether parts add up, and which of them share nothing.

KL is of second order in a small change, so that independent errors add up and aligned ones add more; a ratio far from 1
says that a part's nats depend on what else is damaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from app.contracts.report import Mean
from workers.diagnosis.attribute.search import Measured
from workers.diagnosis.attribute.sites import Site

# A pair whose ratio is a tenth away from 1 is worth knowing of; one within that for sure adds up.
FAR = 0.1


def is_far(found: Mean | None) -> bool:
    """Whether a ratio is away from 1, for sure and by enough to matter."""
    if found is None or found.mean is None or found.ci is None:
        return False
    return abs(found.mean - 1) >= FAR and not found.ci[0] <= 1 <= found.ci[1]


def is_near(found: Mean | None) -> bool:
    """Whether the whole interval of a ratio is nearer to 1 than what matters: neither far nor near is undecided."""
    return found is not None and found.ci is not None and found.ci[0] > 1 - FAR and found.ci[1] < 1 + FAR


def pairs(sites: Sequence[Site], most: int) -> list[tuple[Site, Site]]:
    """Pairs of parts that share nothing, of the first ones first, at most so many."""
    found = [(a, b) for a, b in combinations(range(len(sites)), 2) if not sites[a].within(sites[b])]
    found.sort(key=lambda pair: (pair[0] + pair[1], pair[0]))
    return [(sites[a], sites[b]) for a, b in found[:most]]


def disjoint(ranked: Sequence[Measured], top: int, *, most_of: float = 0.6) -> list[Site]:
    """The first parts that share nothing, in their order. A layer gives way to a single part of it that was measured on
    as much of the text, and on the layer's costs `most_of` of what it costs: that one says more."""

    def gives_way(layer: Measured) -> bool:
        size = len(layer.kl)
        return layer.site.whole and any(
            other.site.layer == layer.site.layer
            and not other.site.whole
            and len(other.kl) >= size
            and other.nats_on(size) >= most_of * layer.nats
            for other in ranked
        )

    chosen: list[Site] = []
    for one in ranked:
        if len(chosen) == top:
            break
        # what costs nothing may stand before what does, and was measured on less of the text
        if one.nats > 0 and not gives_way(one) and not any(one.site.within(other) for other in chosen):
            chosen.append(one.site)
    return chosen
