"""The best order-preserving matching of two rows of layers: global alignment by dynamic programming.

Needleman & Wunsch (J. Mol. Biol. 48, 1970): the sum of the similarities of matched pairs minus a price for each layer
that has no partner is made as large as can be. Of equal alignments the one that matches as early as possible is taken.

Names: R, C layers of reference and candidate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
# A layer without a partner costs this. Similarities are never negative, so that two layers in each other's place are
# matched however little alike they are; it decides between two layers of which one must stay without.
GAP_PRICE = 0.1


@dataclass(frozen=True)
class Gap:
    """A run of layers without a partner: `reference` ones that the candidate lacks, `candidate` ones that it has more.
    It is before layer `after_reference` of the reference and `after_candidate` of the candidate."""

    reference: tuple[int, ...]
    candidate: tuple[int, ...]
    after_reference: int
    after_candidate: int


@dataclass(frozen=True)
class Matching:
    """`pairs` (reference, candidate) rising, and `gaps` between them."""

    pairs: tuple[tuple[int, int], ...]
    gaps: tuple[Gap, ...]


def match(similarity_RC: Array, *, price: float = GAP_PRICE) -> Matching:
    """The best matching of rows to columns."""
    rows, columns = similarity_RC.shape
    # best[i, j]: of rows i… with columns j…, so that the walk from the start matches as early as it can
    best = np.zeros((rows + 1, columns + 1))
    best[:, columns] = -price * np.arange(rows, -1, -1)
    best[rows, :] = -price * np.arange(columns, -1, -1)
    for i in range(rows - 1, -1, -1):
        for j in range(columns - 1, -1, -1):
            best[i, j] = max(similarity_RC[i, j] + best[i + 1, j + 1], best[i + 1, j] - price, best[i, j + 1] - price)
    pairs = []
    i = j = 0
    while i < rows and j < columns:
        if best[i, j] == similarity_RC[i, j] + best[i + 1, j + 1]:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif best[i, j] == best[i + 1, j] - price:
            i += 1
        else:
            j += 1
    return Matching(tuple(pairs), gaps_between(pairs, rows, columns))


def gaps_between(pairs: Sequence[tuple[int, int]], rows: int, columns: int) -> tuple[Gap, ...]:
    """The runs that a rising list of pairs leaves out."""
    found = []
    before = (-1, -1)
    for pair in [*pairs, (rows, columns)]:
        ours, theirs = range(before[0] + 1, pair[0]), range(before[1] + 1, pair[1])
        if ours or theirs:
            found.append(Gap(tuple(ours), tuple(theirs), pair[0], pair[1]))
        before = pair
    return tuple(found)


@dataclass(frozen=True)
class Course:
    """One step: the reference goes from border `reference[0]` to `reference[1]`, the candidate likewise. A matched pair
    of layers is one border on in both. A gap (`gap`) is as many as it has layers."""

    reference: tuple[int, int]
    candidate: tuple[int, int]
    gap: bool

    @property
    def leaving(self) -> tuple[int, int]:
        """The borders at its end."""
        return self.reference[1], self.candidate[1]


def course(matching: Matching) -> tuple[Course, ...]:
    """All steps in order; they begin at border 0 of both models and end at the last one of both."""
    steps = [Course((ours, ours + 1), (theirs, theirs + 1), gap=False) for ours, theirs in matching.pairs]
    for gap in matching.gaps:
        start = gap.after_reference - len(gap.reference), gap.after_candidate - len(gap.candidate)
        steps.append(Course((start[0], gap.after_reference), (start[1], gap.after_candidate), gap=True))
    return tuple(sorted(steps, key=lambda step: (step.reference, step.candidate)))
