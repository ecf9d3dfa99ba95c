"""What two continuations of one prompt differ by, and what one is like: token ids in, numbers out.

Lengths and places are in tokens and count from 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

# Rows of the table of edit distances between two looks at whether to go on: some tens of milliseconds at the longest.
_ROWS_A_LOOK: Final = 256


def first_divergent(one: Sequence[int], other: Sequence[int]) -> int | None:
    """The first place at which the texts differ, the shorter one's end included; None if they are equal."""
    for place, (mine, theirs) in enumerate(zip(one, other, strict=False)):
        if mine != theirs:
            return place
    return None if len(one) == len(other) else min(len(one), len(other))


def shared_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens the texts begin with in common."""
    place = first_divergent(one, other)
    return len(one) if place is None else place


def edit_distance(one: Sequence[int], other: Sequence[int]) -> int:
    """The fewest insertions, deletions and substitutions of tokens that make one text of the other (Levenshtein)."""
    return int(edit_distances(one, other, [max(len(one), len(other))])[0])


def edit_distances(
    one: Sequence[int],
    other: Sequence[int],
    lengths: Sequence[int],
    *,
    check_cancelled: Callable[[], None] = lambda: None,
) -> NDArray[np.int64]:
    """The edit distance between the first n tokens of each, for each n of `lengths`; a shorter text is taken whole.

    All of them are entries of one table, of which row i holds the distances of `one`'s first i tokens. Time is the
    product of both lengths; memory is that of one row and the answer, since no more of the table is kept.
    `check_cancelled` is called every few hundred rows, and may raise.
    """
    mine, theirs = np.asarray(one, dtype=np.int64), np.asarray(other, dtype=np.int64)
    places = np.arange(len(theirs) + 1)
    rows = np.minimum(np.asarray(lengths, dtype=np.int64), len(mine))
    columns = np.minimum(np.asarray(lengths, dtype=np.int64), len(theirs))
    row = places.copy()
    # Right where the row asked for is the first; every other is written when it is reached.
    found: NDArray[np.int64] = row[columns]
    for at, token in enumerate(mine, start=1):
        if at % _ROWS_A_LOOK == 0:
            check_cancelled()
        grown = np.empty_like(row)
        grown[0] = at
        grown[1:] = np.minimum(row[1:] + 1, row[:-1] + (theirs != token))
        # An insertion costs one a step to the right: the running minimum of what is left after taking the steps off.
        row = np.minimum.accumulate(grown - places) + places
        asked = rows == at
        found[asked] = row[columns[asked]]
    return found


def distinct_n(tokens: Sequence[int], n: int) -> float | None:
    """Different n-grams over all n-grams (Li et al. 2016); None if the text has none."""
    grams = list(zip(*(tokens[start:] for start in range(n)), strict=False))
    return len(set(grams)) / len(grams) if grams else None


def rep_n(tokens: Sequence[int], n: int) -> float | None:
    """1 − distinct-n, the share of repeated n-grams (Welleck et al. 2020); None if the text has no n-gram."""
    distinct = distinct_n(tokens, n)
    return None if distinct is None else 1 - distinct
