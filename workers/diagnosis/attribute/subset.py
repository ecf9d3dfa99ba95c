"""The part of the text on which parts are swapped: windows of one length, so that every batch has one shape.

Longer windows are cut to `length`: later tokens do not change the values of earlier ones. Shorter ones are left out.
The length covers most tokens, and leaves six documents if there are as many, since intervals need them. A conversation
may have nothing scored within such a cut. Its windows begin later, half of the cut before the first scored token.

Windows are taken evenly over the corpus, or in turn from its documents if too few documents would be left. They come in
a random order, so that any first part of them is a sample of all.

Names: N windows, L tokens of a window.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from app.contracts.errors import ErrorCode, HemostatError
from workers.distributions.intervals import FEWEST_CLUSTERS
from workers.distributions.token_values import Positions
from workers.text.windows import Corpus

SHORTEST = 8
# For the sake of more documents windows are cut no shorter: what needs context must have some.
SHORTEST_CUT = 32


@dataclass(frozen=True)
class Subset:
    """`tokens_NL`, `scored_NL` which positions count and `next_NL` what token follows. `windows` are indices into the
    corpus. For each scored position, in order of windows here, `where` is its place in the corpus and `index` its
    number among the corpus's scored positions. `starts`: how many tokens each window begins late
    (empty: none), so that its positions see less than in the corpus."""

    tokens_NL: torch.Tensor
    scored_NL: torch.Tensor
    next_NL: torch.Tensor
    windows: tuple[int, ...]
    where: Positions
    index: NDArray[np.intp]
    starts: tuple[int, ...] = ()

    @property
    def in_full_context(self) -> NDArray[np.bool_]:
        """Of each scored position, whether it sees all that it sees in the corpus."""
        begins = np.asarray(self.starts or (0,) * len(self.windows)) == 0
        return np.repeat(begins, self.scored_NL.sum(1).numpy())

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


def _evenly(places: int, count: int) -> list[int]:
    """So many places of a row, or fewer where some are the same."""
    return [round((i + 0.5) * places / count - 0.5) for i in range(count)]


def _in_turn(usable: list[int], document: NDArray[np.integer], count: int, rng: np.random.Generator) -> list[int]:
    """So many windows, one of every document before a second of any, and of documents that are too many some from all
    over."""
    of_document: dict[int, list[int]] = {}
    for number in usable:
        of_document.setdefault(int(document[number]), []).append(number)
    rows = list(of_document.values())
    rows = [rows[place] for place in _evenly(len(rows), count)] if count < len(rows) else rows
    turns = [[int(number) for number in rng.permutation(row)] for row in rows]
    longest = max(len(turn) for turn in turns)
    return [turn[place] for place in range(longest) for turn in turns if place < len(turn)][:count]


def draw(corpus: Corpus, positions: Positions, *, tokens: int, seed: int) -> Subset:
    """About `tokens` tokens of the corpus. Raises `HemostatError(DOCUMENT_TOO_SHORT)` if no window has 8 tokens."""
    lengths = [len(window.tokens) for window in corpus.windows]
    if max(lengths) < SHORTEST:
        raise HemostatError(
            ErrorCode.DOCUMENT_TOO_SHORT,
            f"the longest window has {max(lengths)} tokens; parts are swapped on windows of at least {SHORTEST}",
            hint="give longer documents or a larger window",
            pointer="/text",
        )
    length = best_length([one for one in lengths if one >= SHORTEST])
    document = np.full(len(lengths), -1)
    document[positions.window] = positions.document
    least = min(FEWEST_CLUSTERS, int(np.unique(positions.document).size))
    length = min(length, max(SHORTEST_CUT, tokens // least))
    begins = _begins(corpus, document, length)
    usable = sorted(begins)
    count = min(len(usable), max(1, round(tokens / length)))
    rng = np.random.default_rng(seed)
    even = sorted({usable[place] for place in _evenly(len(usable), count)})
    if np.unique(document[even]).size < min(count, least):
        even = sorted(_in_turn(usable, document, count, rng))
    chosen = [even[i] for i in rng.permutation(len(even))]
    starts = np.searchsorted(positions.window, np.arange(len(lengths)))
    tokens_NL = np.zeros((len(chosen), length), dtype=np.int64)
    next_NL = np.zeros_like(tokens_NL)
    scored_NL = np.zeros((len(chosen), length), dtype=np.bool_)
    index: list[NDArray[np.intp]] = []
    for row, number in enumerate(chosen):
        window, begin = corpus.windows[number], begins[number]
        tokens_NL[row] = window.tokens[begin : begin + length]
        if begin and corpus.bos:
            tokens_NL[row, 0] = window.tokens[0]
        after = window.tokens[begin + 1 : begin + length + 1]
        next_NL[row, : len(after)] = after
        kept = window.scored[begin : begin + length]
        scored_NL[row, : len(kept)] = kept
        first = starts[number] + int(window.scored[:begin].sum())
        index.append(first + np.arange(int(kept.sum())))
    joined = np.concatenate(index).astype(np.intp)
    return Subset(
        torch.from_numpy(tokens_NL),
        torch.from_numpy(scored_NL),
        torch.from_numpy(next_NL),
        tuple(chosen),
        positions.select(joined),
        joined,
        tuple(begins[number] for number in chosen),
    )


def _begins(corpus: Corpus, document: NDArray[np.integer], length: int) -> dict[int, int]:
    """Windows that can be cut to `length` tokens with something scored in them, and the token that each begins with.
    That is the first one, if the document has such a window."""
    found: dict[int, int] = {}
    late: dict[int, int] = {}
    for number, window in enumerate(corpus.windows):
        if len(window.tokens) < length:
            continue
        first = int(np.argmax(window.scored))
        if first < length:
            found[number] = 0
        else:
            late[number] = min(first - length // 2, len(window.tokens) - length)
    had = {int(document[number]) for number in found}
    return found | {number: begin for number, begin in late.items() if int(document[number]) not in had}
