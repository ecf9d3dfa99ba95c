"""Means clustered by prompt: the positions of one text are not independent."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from app.contracts.report import Mean
from workers.diagnosis.summary import as_mean
from workers.diagnosis.trajectory.survival import binomial_interval
from workers.distributions.intervals import Clusters

Support = tuple[float, float]
REAL: Support = (-np.inf, np.inf)
POSITIVE: Support = (0.0, np.inf)
SHARE: Support = (0.0, 1.0)
NONE = Mean(mean=None, ci=None)


def mean_over(
    columns: Sequence[ArrayLike], prompts: ArrayLike, supports: Sequence[Support], *, seed: int
) -> list[Mean]:
    """Means of several quantities with one value a position (or a prompt), positions of the same `prompts` number being
    of one cluster. Values that are not finite in any of the columns are left out of all."""
    labels = np.asarray(prompts)
    values = [np.asarray(column, dtype=np.float64) for column in columns]
    finite: NDArray[np.bool_] = np.ones(labels.size, dtype=np.bool_)
    for column in values:
        finite &= np.isfinite(column)
    if not finite.any():
        return [NONE] * len(values)
    clusters = Clusters.of(labels[finite], labels[finite])
    estimates = clusters.means([column[finite] for column in values], seed=seed)
    return [as_mean(estimate, support) for estimate, support in zip(estimates, supports, strict=True)]


def share_of_prompts(hits: Sequence[bool]) -> Mean:
    """A share of prompts, one yes or no each, with its exact binomial interval."""
    if not hits:
        return NONE
    count = sum(hits)
    return Mean(mean=count / len(hits), ci=binomial_interval(count, len(hits)), clusters="documents")
