"""The part of the text on which parts are swapped: windows of one length, so that every batch has one shape.

Windows longer than `length` are cut there (what comes after a token does not touch it, so the values are those of the
whole window), shorter ones are left out; the length is chosen so that most tokens are covered. Windows are taken evenly
over the corpus and put in a random order, so that any first part of them is a sample of all.

Names: N windows, L tokens of a window.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from app.contracts.errors import ErrorCode, HemostatError
from workers.distributions.token_values import Positions
from workers.text.windows import Corpus

SHORTEST = 8


@dataclass(frozen=True)
class Subset:
    """`tokens_NL`, `scored_NL` which positions count and `next_NL` what token follows; `windows` are indices into the
    corpus, `where` tells of each scored position (in order of windows here) where it stands, `index` which of the
    corpus's scored positions it is."""

    tokens_NL: torch.Tensor
    scored_NL: torch.Tensor
    next_NL: torch.Tensor
    windows: tuple[int, ...]
    where: Positions
    index: NDArray[np.intp]

    @property
    def length(self) -> int:
        """L."""
        return int(self.tokens_NL.shape[1])

    def positions(self, windows: int) -> int:
        """Scored positions of the first so many windows."""
        return int(self.scored_NL[:windows].sum())


def best_length(lengths: list[int]) -> int:
    """The cut that covers most tokens: max of L · #(windows of at least L)."""
    ordered = np.sort(np.asarray(lengths))
    counts = ordered.size - np.searchsorted(ordered, ordered, side="left")
    # of equals the longest: context is worth something
    covered = ordered * counts
    return int(ordered[np.flatnonzero(covered == covered.max())[-1]])


def draw(corpus: Corpus, positions: Positions, *, tokens: int, seed: int) -> Subset:
    """About `tokens` tokens of the corpus. Raises `HemostatError(DOCUMENT_TOO_SHORT)` where no window has 8 tokens."""
    lengths = [len(window.tokens) for window in corpus.windows]
    if max(lengths) < SHORTEST:
        raise HemostatError(
            ErrorCode.DOCUMENT_TOO_SHORT,
            f"the longest window has {max(lengths)} tokens; parts are swapped on windows of at least {SHORTEST}",
            hint="give longer documents or a larger window",
            pointer="/text",
        )
    length = best_length([one for one in lengths if one >= SHORTEST])
    usable = [i for i, one in enumerate(corpus.windows) if lengths[i] >= length and one.scored[:length].any()]
    if not usable:
        usable, length = [int(np.argmax(lengths))], max(lengths)
    count = min(len(usable), max(1, round(tokens / length)))
    even = sorted({usable[round((i + 0.5) * len(usable) / count - 0.5)] for i in range(count)})
    chosen = [even[i] for i in np.random.default_rng(seed).permutation(len(even))]
    starts = np.searchsorted(positions.window, np.arange(len(lengths)))
    tokens_NL = np.zeros((len(chosen), length), dtype=np.int64)
    next_NL = np.zeros_like(tokens_NL)
    scored_NL = np.zeros((len(chosen), length), dtype=np.bool_)
    index: list[NDArray[np.intp]] = []
    for row, number in enumerate(chosen):
        window = corpus.windows[number]
        tokens_NL[row] = window.tokens[:length]
        after = window.tokens[1 : length + 1]
        next_NL[row, : len(after)] = after
        kept = window.scored[:length]
        scored_NL[row, : len(kept)] = kept
        index.append(starts[number] + np.arange(int(kept.sum())))
    joined = np.concatenate(index).astype(np.intp)
    return Subset(
        torch.from_numpy(tokens_NL),
        torch.from_numpy(scored_NL),
        torch.from_numpy(next_NL),
        tuple(chosen),
        positions.select(joined),
        joined,
    )
