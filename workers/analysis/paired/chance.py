"""Is an accuracy better than guessing? Where it is not, flips are coin tosses and say nothing of damage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy import stats

_LEVEL = 0.05


def accuracy(choices: Sequence[int]) -> float:
    """Expected accuracy of uniform guessing, of the number of choices of each item."""
    return float(np.mean([1.0 / count for count in choices]))


def commonest(items: Sequence[tuple[Sequence[str], int | None]]) -> float:
    """Share of items that are right for anyone who always takes the commonest right choice.

    `items` are (choices, place of the right one) each. The share is 0 unless all items have the same choices and that
    choice is right more often than uniform golds make it. The commonest of several is always a little above its share
    by chance. So an exact binomial test must show it at 5 %, its p times the number of choices (Bonferroni).
    """
    same = {tuple(choices) for choices, _ in items}
    if len(same) != 1 or not (count := len(same.pop())):
        return 0.0
    most = Counter(gold for _, gold in items).most_common(1)[0][1]
    p = count * float(stats.binom.sf(most - 1, len(items), 1 / count))
    return most / len(items) if p < _LEVEL else 0.0


def p_value(right: int, choices: Sequence[int]) -> float:
    """P(at least `right` items are guessed), exact: the sum of binomials over items of as many choices each."""
    distribution = np.ones(1)
    for count, items in sorted(Counter(choices).items()):
        part = stats.binom.pmf(np.arange(items + 1), items, 1.0 / count)
        distribution = np.convolve(distribution, part)
    if not 0 <= right < distribution.size:
        raise ValueError(f"{right} right answers of {distribution.size - 1} items")
    return float(min(1.0, distribution[right:].sum()))
