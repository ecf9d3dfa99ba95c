"""Is an accuracy better than guessing? Where it is not, flips are coin tosses and say nothing of damage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy import stats


def accuracy(choices: Sequence[int]) -> float:
    """Expected accuracy of uniform guessing, of the number of choices of each item."""
    return float(np.mean([1.0 / count for count in choices]))


def commonest(items: Sequence[tuple[Sequence[str], int | None]]) -> float:
    """Share of items, each (choices, place of the right one), that whoever always takes the commonest right choice has
    right, where all items have the same choices and that is more than uniform guessing; else 0."""
    same = {tuple(choices) for choices, _ in items}
    if len(same) != 1 or not (count := len(same.pop())):
        return 0.0
    share = Counter(gold for _, gold in items).most_common(1)[0][1] / len(items)
    return share if share > 1 / count else 0.0


def p_value(right: int, choices: Sequence[int]) -> float:
    """P(at least `right` items are guessed), exact: the sum of binomials over items of as many choices each."""
    distribution = np.ones(1)
    for count, items in sorted(Counter(choices).items()):
        part = stats.binom.pmf(np.arange(items + 1), items, 1.0 / count)
        distribution = np.convolve(distribution, part)
    if not 0 <= right < distribution.size:
        raise ValueError(f"{right} right answers of {distribution.size - 1} items")
    return float(min(1.0, distribution[right:].sum()))
