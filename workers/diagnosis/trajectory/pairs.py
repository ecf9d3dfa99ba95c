"""What two texts after one prompt differ by, position by position, and the positions that are reported together.

Positions count from 1, the first generated token. A text that ended is followed by nothing: where the other one goes
on, they differ at the position after its last token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from workers.decoding.text_statistics import edit_distances, first_divergent, rep_n

REPETITION_ORDERS: Final = (1, 2, 3, 4)
Tokens = Sequence[int]


def first_difference(one: Tokens, other: Tokens) -> int | None:
    """Position of the first token that differs, one of the texts having ended included; None for equal texts."""
    place = first_divergent(one, other)
    return None if place is None else place + 1


def disagreements(one: Tokens, other: Tokens) -> NDArray[np.bool_]:
    """(T,) whether the texts differ at each position, T the shorter one's length."""
    length = min(len(one), len(other))
    different: NDArray[np.bool_] = np.asarray(one[:length], dtype=np.int64) != np.asarray(
        other[:length], dtype=np.int64
    )
    return different


def edit_shares(
    one: Tokens, other: Tokens, lengths: Sequence[int], *, check_cancelled: Callable[[], None] = lambda: None
) -> list[float]:
    """Levenshtein distance of the first L ≥ 1 tokens of both texts over the longer prefix's length, 0 to 1, for each L
    of `lengths`. `check_cancelled` may raise."""
    found = edit_distances(one, other, lengths, check_cancelled=check_cancelled)
    return [
        float(distance) / max(1, min(length, max(len(one), len(other))))
        for distance, length in zip(found, lengths, strict=True)
    ]


def repetition(tokens: Tokens, n: int) -> float:
    """Share of a text's n-grams that stood before in it; NaN for a text shorter than n, which has none."""
    share = rep_n(tokens, n)
    return float("nan") if share is None else share


def distinct(tokens: Tokens) -> float:
    """Distinct tokens as a share of all; NaN for a text without any."""
    return 1 - repetition(tokens, 1)


def lengths_up_to(most: int) -> tuple[int, ...]:
    """16, 32, 64, … and the most tokens last: where edit distances are reported."""
    lengths = []
    length = 16
    while length < most:
        lengths.append(length)
        length *= 2
    return (*lengths, most)


def bands_up_to(most: int) -> tuple[tuple[int, int], ...]:
    """1–8, 9–16, 17–32, 33–64, … : positions in bands, both ends inside, the last one ending at `most`."""
    bands: list[tuple[int, int]] = []
    first, last = 1, 8
    while first <= most:
        bands.append((first, min(last, most)))
        first, last = last + 1, 2 * last
    return tuple(bands)
