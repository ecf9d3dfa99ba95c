"""Paired bootstrap of a difference in accuracy: items are drawn with replacement, both models' answers together."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from workers.analysis.paired.pairs import Interval
from workers.distributions.intervals import RESAMPLES, Clusters

_DRAWS: Final = 100_000_000


def paired(reference: ArrayLike, candidate: ArrayLike, *, seed: int) -> Interval:
    """95 % studentized bootstrap interval of the mean of candidate − reference over items; a point where there is no
    flip (the score interval has a width there)."""
    change = np.asarray(candidate, dtype=np.float64) - np.asarray(reference, dtype=np.float64)
    if change.size < 2:
        raise ValueError("a bootstrap needs two items")
    # Of very many items fewer draws: the interval is then narrow, and its own error narrower still.
    resamples = int(min(RESAMPLES, max(1_000, _DRAWS // change.size)))
    (estimate,) = Clusters(np.arange(change.size), "documents").means([change], seed=seed, resamples=resamples)
    low, high = estimate.within(-1.0, 1.0).interval or (-1.0, 1.0)
    return low, high
