"""Windows longer than the reference's context: what the reference reads there.

A candidate whose context was extended is compared beyond the point where the reference can follow. There the reference
has no distribution after the whole text, and the best that its owner can do is to cut. It reads the newest tokens, at
least half of its context and at most all of it. A KL beyond that point shows how far the extended model is from the
original that reads on in this way. A perplexity ratio below 1 shows that the longer context helps.

With L the reference's context (the BOS counted) and h = ⌊L/2⌋: positions 0 to L − 2 of a window come from one pass over
its first L tokens. Then each h positions from a pass over the L tokens that end with the last one that they predict.

Names: T tokens of a window, D hidden size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import torch

from workers.text.windows import Corpus, Window


@dataclass(frozen=True)
class _Part:
    """Positions [first, last) of a window, from a pass over the window's tokens [begin, last]."""

    first: int
    last: int
    begin: int


def _read(window: Window, part: _Part, *, bos: bool) -> Window:
    """A part as a window of its own."""
    tokens, scored = window.tokens[part.begin : part.last + 1], window.scored[part.begin : part.last].copy()
    scored[: part.first - part.begin] = False
    start = window.start + part.begin
    if bos and part.begin > 0:
        tokens = np.concatenate([window.tokens[:1], tokens])
        scored = np.concatenate([np.zeros(1, dtype=np.bool_), scored])
        start -= 1
    return Window(window.document, start, tokens, scored)


@dataclass(frozen=True)
class Cut:
    """What the reference reads of a corpus whose windows are longer than its context.

    `corpus` has the parts as windows, with the same scored positions in the same order; `positions` (of each part) and
    `first` (of each window) tell where they stand.
    """

    corpus: Corpus
    _windows: Sequence[Window]
    _parts: tuple[tuple[int, _Part], ...]
    _first: tuple[int, ...]

    def states(self, stored: Callable[[int], torch.Tensor]) -> Callable[[int], torch.Tensor]:
        """From the hidden states of a part to those of a window, hidden_TD; the last token's are zeros, since nothing
        is predicted from them."""

        def of_window(number: int) -> torch.Tensor:
            length = len(self._windows[number].tokens)
            found: torch.Tensor | None = None
            for index in range(self._first[number], self._first[number + 1]):
                part = self._parts[index][1]
                hidden_TD = stored(index)
                if found is None:
                    found = hidden_TD.new_zeros((length, hidden_TD.shape[1]))
                rows = part.last - part.first
                # The last token of a part predicts nothing within it.
                found[part.first : part.last] = hidden_TD[len(hidden_TD) - 1 - rows : len(hidden_TD) - 1]
            if found is None:
                raise RuntimeError("a window has no part")
            return found

        return of_window


def reference_limit(window: int, context: int | None) -> int | None:
    """The reference's context where it is shorter than the windows, else None."""
    return context if context is not None and context < window else None


def cut(corpus: Corpus, limit: int) -> Cut:
    """The corpus as a reference of a context of `limit` tokens reads it. Raises ValueError for fewer than four."""
    if limit < 4:
        raise ValueError("a context of fewer than four tokens leaves nothing to read on from")
    lengths = [len(window.tokens) for window in corpus.windows]
    parts = [tuple(_parts(length, limit, bos=corpus.bos)) for length in lengths]
    flat = tuple((number, part) for number, many in enumerate(parts) for part in many)
    first = tuple(accumulate((len(many) for many in parts), initial=0))
    read = replace(
        corpus,
        windows=[_read(corpus.windows[number], part, bos=corpus.bos) for number, part in flat],
        window=limit,
        fingerprint=hashlib.sha256(f"{corpus.fingerprint} read by {limit}".encode()).hexdigest(),
    )
    return Cut(read, corpus.windows, flat, first)


def protocol(limit: int) -> str:
    """What a report says of it."""
    return (
        f"; beyond its context of {limit} tokens the reference reads the newest {limit - limit // 2} to {limit - 1} "
        "tokens, the candidate all of the window"
    )


def _parts(length: int, limit: int, *, bos: bool) -> Iterator[_Part]:
    """The parts of a window of `length` tokens: positions 0 to length − 2."""
    positions = length - 1
    yield _Part(0, min(limit - 1, positions), 0)
    first = limit - 1
    while first < positions:
        last = min(first + limit // 2, positions)
        yield _Part(first, last, last + 1 - (limit - bos))
        first = last
