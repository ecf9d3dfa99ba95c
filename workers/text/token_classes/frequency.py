"""How often each token occurs in the text itself: rare tokens."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

RARE = 2
# Occurrences: once, 2 to 3, 4 to 15, and so on.
EDGES = (1, 2, 4, 16, 64, 256)
RULE = (
    "Occurrences of the predicted token's id among all tokens of this text that the models read, scored or not. A "
    "longer text has fewer rare tokens, so bands compare within a text, not between texts."
)


def occurrences(windows: Iterable[npt.NDArray[np.int32]], vocabulary: int) -> npt.NDArray[np.int64]:
    """(V,) how often each token id is in the windows."""
    counts = np.zeros(vocabulary, dtype=np.int64)
    for tokens in windows:
        counts += np.bincount(tokens, minlength=vocabulary)[:vocabulary]
    return counts


def rare(occurrences_T: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.bool_]:
    """Tokens that occur at most twice in the text that the models read. Rare here is not rare in the language: it is
    what this text gives no other context for."""
    return np.asarray(occurrences_T <= RARE)


def edges(occurrences_T: npt.NDArray[np.integer[Any]]) -> tuple[int, ...]:
    """Bands of occurrences that hold every token."""
    return (*EDGES, max(EDGES[-1], int(occurrences_T.max(initial=0))) + 1)
