"""How long two models write the same text: the survival curve of a shared prefix over prompts.

No prompt is lost from sight: a text pair parts within the tokens generated, or is the same to the end. So the share
that survives is a binomial share at each position, and its interval the exact one (Clopper and Pearson 1934). Median
and interval of the median follow by reading both where they cross one half (Brookmeyer and Crowley 1982).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from app.kinds.trajectory.report import SurvivalPoint

CONFIDENCE = 0.95


def survival(first_differences: Sequence[int | None], most: int) -> tuple[SurvivalPoint, ...]:
    """The curve from 0 to `most` tokens. A prompt whose texts first differ at position t shares t − 1 tokens, and has
    parted after t. Raises ValueError for no prompts."""
    if not first_differences:
        raise ValueError("no prompts")
    count = len(first_differences)
    parted = np.asarray([most + 1 if first is None else first for first in first_differences])
    same = (parted[None, :] > np.arange(most + 1)[:, None]).sum(axis=1)
    intervals = {0: (1.0, 1.0)}  # before the first token nothing can differ
    by_count = {number: binomial_interval(number, count) for number in sorted({int(number) for number in same})}
    return tuple(
        SurvivalPoint(
            tokens=tokens,
            share=int(number) / count,
            ci=intervals.get(tokens, by_count[int(number)]),
        )
        for tokens, number in enumerate(same)
    )


def binomial_interval(successes: int, trials: int) -> tuple[float, float]:
    """95 % Clopper–Pearson interval of a share."""
    tail, failures = (1 - CONFIDENCE) / 2, trials - successes
    low = float(stats.beta.ppf(tail, successes, failures + 1)) if successes else 0.0
    high = float(stats.beta.ppf(1 - tail, successes + 1, failures)) if failures else 1.0
    return (low, high)


def median(curve: Sequence[SurvivalPoint]) -> tuple[int | None, tuple[int | None, int | None]]:
    """The first position after which at most half are the same, and its interval; None: beyond the curve's end."""

    def crossing(values: Sequence[float]) -> int | None:
        return next((point.tokens for point, value in zip(curve, values, strict=True) if value <= 0.5), None)

    low, high = crossing([point.ci[0] for point in curve]), crossing([point.ci[1] for point in curve])
    return crossing([point.share for point in curve]), (low, high)
