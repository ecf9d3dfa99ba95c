"""Rejection sampling of a drafted block (Leviathan et al., 2211.17192; Chen et al., 2302.01318).

A token x drawn from q is kept with probability min(1, p(x)/q(x)). The first one that is not is replaced by a draw from
the normalized positive part of p − q. The rest of the draft is dropped. A whole draft that is kept earns one more
token, drawn from p. The tokens then follow p exactly, whatever q is; 1 − TV(p, q) is the probability of keeping one.

Names: K drafted tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class NotFiniteError(ValueError):
    """A distribution is none: its numbers are not finite."""


def draw(weights_V: Array, uniform: float) -> int:
    """The index that a uniform number in [0, 1) falls on: uniform draws of it have probabilities as the weights.

    Raises NotFiniteError if no weight is positive, or one is not finite.
    """
    cumulative_V = np.cumsum(weights_V)
    total = float(cumulative_V[-1])
    if not 0 < total < np.inf:
        raise NotFiniteError("nothing can be drawn: the weights are zero or not finite")
    # The product may round up to the total itself, past the last weight that is not zero.
    index = int(np.searchsorted(cumulative_V, uniform * total, side="right"))
    return index if index < len(weights_V) and weights_V[index] > 0 else int(np.flatnonzero(weights_V > 0)[-1])


def verify(
    p_KV: Sequence[NDArray[Any]], q_KV: Sequence[NDArray[Any]], drafted: Sequence[int], generator: np.random.Generator
) -> tuple[list[int], int]:
    """The tokens that this block yields (one to K + 1 of them), and how many drafted ones were kept.

    p_KV has K + 1 rows: the reference's distribution before each drafted token and after the last. q_KV has K rows: the
    distributions that the tokens were drawn from. Raises NotFiniteError if a p that is looked at is not finite, and
    ValueError if shapes do not fit.
    """
    if len(p_KV) != len(drafted) + 1 or len(q_KV) != len(drafted):
        raise ValueError(f"{len(drafted)} drafted tokens, {len(q_KV)} rows of q and {len(p_KV)} of p do not fit")
    tokens: list[int] = []
    for row, token in enumerate(drafted):
        p_V, q_V = p_KV[row], q_KV[row]
        if not np.isfinite(p_V).all():
            raise NotFiniteError("the reference's distribution is not finite")
        if generator.random() * q_V[token] < p_V[token]:
            tokens.append(token)
            continue
        rest_V = np.maximum(p_V - q_V, 0.0)
        # Rounding alone can reject where p and q are the same; then p is what is left to draw from.
        tokens.append(draw(rest_V if rest_V.any() else p_V, generator.random()))
        return tokens, row
    tokens.append(draw(p_KV[-1], generator.random()))
    return tokens, len(drafted)
