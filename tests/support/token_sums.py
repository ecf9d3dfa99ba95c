"""Sums over documents of correlated, skewed tokens whose mean is known."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
# Correlation of neighbouring tokens, and σ of a token's logarithm.
CORRELATION, SIGMA = 0.6, 1.0
SHORTEST, LONGEST = 20, 160


def lengths(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Tokens per document, from 20 to 160."""
    return rng.integers(SHORTEST, LONGEST + 1, shape).astype(np.float64)


def token_sums(lengths_RN: Array, rng: np.random.Generator) -> Array:
    """Sums of an AR(1), exponentiated, of mean 1 per token: (R, N)."""
    state = rng.standard_normal(lengths_RN.shape, dtype=np.float32)
    sums = np.zeros(lengths_RN.shape)
    for position in range(LONGEST):
        sums += np.where(position < lengths_RN, np.exp(SIGMA * state - SIGMA**2 / 2), 0)
        state *= CORRELATION
        state += np.float32(np.sqrt(1 - CORRELATION**2)) * rng.standard_normal(state.shape, dtype=np.float32)
    return sums
