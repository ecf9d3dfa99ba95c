"""Means clustered by prompt: the positions of one text are not independent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from app.contracts.report import Mean
from workers.diagnosis.trajectory.survival import binomial_interval
from workers.distributions.intervals import Clusters, Estimate
from workers.measuring.summary import as_mean

Support = tuple[float, float]
POSITIVE: Support = (0.0, np.inf)
SHARE: Support = (0.0, 1.0)
NONE = Mean(mean=None, ci=None)


def mean_over(
    columns: Sequence[ArrayLike], prompts: ArrayLike, supports: Sequence[Support], *, seed: int
) -> list[Mean]:
    """Means of several quantities with one value a position (or a prompt), positions of the same `prompts` number being
    of one cluster. Values that are not finite in any of the columns are left out of all. Intervals stay within the
    quantity's support, and have a width where it is bounded (`widened`)."""
    labels = np.asarray(prompts)
    values = [np.asarray(column, dtype=np.float64) for column in columns]
    finite: NDArray[np.bool_] = np.ones(labels.size, dtype=np.bool_)
    for column in values:
        finite &= np.isfinite(column)
    if not finite.any():
        return [NONE] * len(values)
    clusters = Clusters.of(labels[finite], labels[finite])
    estimates = clusters.means([column[finite] for column in values], seed=seed)
    return [as_mean(widened(estimate, support), support) for estimate, support in zip(estimates, supports, strict=True)]


def widened(estimate: Estimate, support: Support) -> Estimate:
    """The estimate; where the mean of a bounded quantity is the same in all N clusters, with another interval.

    No resampling of equal clusters shows how far others may lie. At most a share u of the clusters differs, with u the
    upper Clopper–Pearson limit of none of N, and each of those is within the support [a, b]. The mean m is between
    m - u (m - a) and m + u (b - m). For yes or no in every cluster that is the exact binomial interval.
    """
    low, high = support
    if estimate.clusters < 2 or estimate.standard_error != 0 or not np.isfinite(support).all():
        return estimate
    _, most = binomial_interval(0, estimate.clusters)
    mean = estimate.mean
    return replace(estimate, interval=(mean - most * (mean - low), mean + most * (high - mean)))


def share_of(estimate: Estimate, *, sure: bool = False) -> Mean:
    """A share of positions as the report writes it; without an interval where it could not be another one (`sure`)."""
    return as_mean(replace(estimate, interval=None) if sure else widened(estimate, SHARE), SHARE)


def change_over(ours: ArrayLike, theirs: ArrayLike, support: Support, *, seed: int) -> Mean:
    """Mean of `theirs` − `ours`, one value a prompt each, both within `support`; prompts at which either is not finite
    are left out. Where every prompt changes by the same there is no interval.
    """
    first, second = (np.asarray(values, dtype=np.float64) for values in (ours, theirs))
    finite = np.isfinite(first) & np.isfinite(second)
    if not finite.any():
        return NONE
    first, second = first[finite], second[finite]
    change = second - first
    if np.ptp(change) == 0:
        return Mean(mean=float(change[0]), ci=None)
    low, high = support
    return mean_over([change], np.arange(change.size), [(low - high, high - low)], seed=seed)[0]


def share_of_prompts(hits: Sequence[bool]) -> Mean:
    """A share of prompts, one yes or no each, with its exact binomial interval."""
    if not hits:
        return NONE
    count = sum(hits)
    return Mean(mean=count / len(hits), ci=binomial_interval(count, len(hits)), clusters="documents")
