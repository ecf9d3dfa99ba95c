"""What two continuations of one prompt differ by, and what one is like: token ids in, numbers out.

Lengths and places are in tokens and count from 0. Survival is Kaplan and Meier's product-limit estimate (1958) with
Greenwood's variance and an interval on the scale of log(−log S), which keeps it inside (0, 1) (Kalbfleisch and
Prentice, The Statistical Analysis of Failure Time Data, §1.4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]
CONFIDENCE: Final = 0.95


def first_divergent(one: Sequence[int], other: Sequence[int]) -> int | None:
    """The first place at which the texts differ, the shorter one's end included; None where they are equal."""
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


def edit_distances(one: Sequence[int], other: Sequence[int], lengths: Sequence[int]) -> NDArray[np.int64]:
    """The edit distance between the first n tokens of each, for each n of `lengths`; a shorter text is taken whole.

    All of them are entries of one table, of which row i holds the distances of `one`'s first i tokens.
    """
    mine, theirs = np.asarray(one, dtype=np.int64), np.asarray(other, dtype=np.int64)
    places = np.arange(len(theirs) + 1)
    row = places.copy()
    table = [row]
    for at, token in enumerate(mine, start=1):
        grown = np.empty_like(row)
        grown[0] = at
        grown[1:] = np.minimum(row[1:] + 1, row[:-1] + (theirs != token))
        # An insertion costs one a step to the right: the running minimum of what is left after taking the steps off.
        row = np.minimum.accumulate(grown - places) + places
        table.append(row)
    return np.array(
        [table[min(n, len(mine))][min(n, len(theirs))] for n in lengths],
        dtype=np.int64,
    )


def distinct_n(tokens: Sequence[int], n: int) -> float | None:
    """Different n-grams over all n-grams (Li et al. 2016); None where the text has none."""
    grams = list(zip(*(tokens[start:] for start in range(n)), strict=False))
    return len(set(grams)) / len(grams) if grams else None


def rep_n(tokens: Sequence[int], n: int) -> float | None:
    """1 − distinct-n, the share of repeated n-grams (Welleck et al. 2020); None where the text has no n-gram."""
    distinct = distinct_n(tokens, n)
    return None if distinct is None else 1 - distinct


@dataclass(frozen=True)
class Survival:
    """The share of texts that have not parted by a place: `survival[i]` = P(T > `times[i]`), constant up to the next
    time; before the first one it is 1. `low` and `high` bound it pointwise at 95 %.

    `times` are the places at which a text parted. `at_risk` is how many had not parted before and were still seen,
    `events` how many parted there. `censored` texts never parted while they were seen.
    """

    times: NDArray[np.int64]
    survival: Array
    low: Array
    high: Array
    at_risk: NDArray[np.int64]
    events: NDArray[np.int64]
    censored: int

    def at(self, time: float) -> float:
        """P(T > time)."""
        place = int(np.searchsorted(self.times, time, side="right"))
        return 1.0 if place == 0 else float(self.survival[place - 1])

    @property
    def median(self) -> int | None:
        """The first place by which half of the texts have parted; None where that is not seen."""
        below = np.flatnonzero(self.survival <= 0.5)
        return int(self.times[below[0]]) if below.size else None

    @property
    def median_interval(self) -> tuple[int | None, int | None]:
        """The places that a median of 95 % confidence lies between (Brookmeyer and Crowley 1982): where the curve's
        limits pass one half. None: not seen."""
        limits = (np.flatnonzero(limit <= 0.5) for limit in (self.low, self.high))
        low, high = (int(self.times[below[0]]) if below.size else None for below in limits)
        return low, high


def survival_curve(times: Sequence[int], parted: Sequence[bool]) -> Survival:
    """Kaplan–Meier: `times` is the place at which a text parted, or, where `parted` is false, up to which both texts
    were equal when the limit ended them (such a time counts as later than an event at the same place).

    Raises ValueError for no text, or lengths that differ.
    """
    when, event = np.asarray(times, dtype=np.int64), np.asarray(parted, dtype=bool)
    if when.shape != event.shape or when.ndim != 1 or not when.size:
        raise ValueError(f"{when.shape} times and {event.shape} events")
    places = np.unique(when[event])
    at_risk = (when[None] >= places[:, None]).sum(1)
    events = ((when[None] == places[:, None]) & event[None]).sum(1)
    survival = np.cumprod(1 - events / at_risk)
    low, high = _limits(survival, at_risk, events)
    return Survival(places, survival, low, high, at_risk, events, int((~event).sum()))


def _limits(survival: Array, at_risk: NDArray[np.int64], events: NDArray[np.int64]) -> tuple[Array, Array]:
    """S^exp(±z·se / ln S), se² Greenwood's sum. Where the last text at risk parted, S is 0 and the variance does not
    exist: the lower limit is 0 and the upper one the last before it."""
    z = float(stats.norm.ppf((1 + CONFIDENCE) / 2))
    inside = survival > 0
    left = np.where(inside, at_risk - events, 1)
    variance = np.cumsum(np.where(inside, events / (at_risk * left), 0.0))
    log = np.log(np.where(inside, survival, 0.5))
    width = z * np.sqrt(variance) / -log
    low, high = np.exp(log * np.exp(width)), np.exp(log * np.exp(-width))
    last = float(high[inside][-1]) if inside.any() else 1.0
    return np.where(inside, low, 0.0), np.where(inside, high, last)


@dataclass(frozen=True)
class Pair:
    """Two continuations of one prompt, lengths and places in tokens; `parted_at` is None where they are equal."""

    parted_at: int | None
    shared: int
    edits: int
    length_reference: int
    length_candidate: int


def compared(reference: Sequence[int], candidate: Sequence[int]) -> Pair:
    """The two texts of a prompt, one beside the other."""
    return Pair(
        parted_at=first_divergent(reference, candidate),
        shared=shared_prefix(reference, candidate),
        edits=edit_distance(reference, candidate),
        length_reference=len(reference),
        length_candidate=len(candidate),
    )


def survival_of(pairs: Sequence[Pair], limit: int) -> Survival:
    """Survival of agreement over prompts that were continued by at most `limit` tokens.

    Equal texts are censored at the limit: those that it cut may part later, those that ended together never do, and
    neither did before. Raises ValueError for no pair.
    """
    return survival_curve(
        [limit if pair.parted_at is None else pair.parted_at for pair in pairs],
        [pair.parted_at is not None for pair in pairs],
    )
