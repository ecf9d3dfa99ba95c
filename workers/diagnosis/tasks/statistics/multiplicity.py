"""Several tests at once: adjusted p-values, each to be compared with the level itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def holm(values: Sequence[float]) -> list[float]:
    """Holm's step-down: no false rejection with probability 1 − level, whatever hangs together."""
    p = np.asarray(values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    factors = np.arange(p.size, 0, -1)
    rising = np.minimum(1.0, np.maximum.accumulate(p[order] * factors))
    adjusted = np.empty_like(p)
    adjusted[order] = rising
    return [float(value) for value in adjusted]


def benjamini_hochberg(values: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's step-up: of what is rejected, an expected share of at most the level is false."""
    p = np.asarray(values, dtype=np.float64)
    order = np.argsort(p, kind="stable")[::-1]
    factors = p.size / np.arange(p.size, 0, -1)
    falling = np.minimum(1.0, np.minimum.accumulate(p[order] * factors))
    adjusted = np.empty_like(p)
    adjusted[order] = falling
    return [float(value) for value in adjusted]
