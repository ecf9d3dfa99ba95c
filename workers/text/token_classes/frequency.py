"""How often each token occurs in the text itself: rare tokens."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

RARE = 2


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
