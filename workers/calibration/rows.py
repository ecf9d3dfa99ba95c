"""Scored positions of a set of documents, as calibrators are fitted and tested on them.

Names: T rows, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from workers.calibrators.protocol import RowContext
from workers.distributions.reference_store import StoredHidden
from workers.distributions.token_values import Positions
from workers.measuring.positions import positions_of
from workers.text.windows import Corpus


@dataclass(frozen=True)
class Rows:
    """One row a scored position, window by window.

    `reference_TD` and `candidate_TD` are the final hidden states in the engine's dtype. `corrected_TD` are those of the
    candidate with corrections after each block, if there are any. `next_T` is the observed token (int64), `context`
    what a served row knows of itself. `positions` says where each row is; `domains` is the domain of each document
    index.
    """

    reference_TD: torch.Tensor
    candidate_TD: torch.Tensor
    next_T: torch.Tensor
    context: RowContext
    positions: Positions
    domains: tuple[str, ...]
    corrected_TD: torch.Tensor | None = None

    def __len__(self) -> int:
        return int(self.next_T.shape[0])

    def row_domains(self) -> np.ndarray[tuple[int], np.dtype[np.str_]]:
        """The domain of each row."""
        return np.asarray(self.domains)[self.positions.document]

    def first(self, count: int) -> Rows:
        """At most `count` rows from the start."""
        return self.select(np.arange(min(count, len(self))))

    def select(self, index: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Rows:
        """The rows of integer indices."""
        rows = torch.from_numpy(np.ascontiguousarray(index, dtype=np.int64))
        return replace(
            self,
            reference_TD=self.reference_TD[rows],
            candidate_TD=self.candidate_TD[rows],
            corrected_TD=None if self.corrected_TD is None else self.corrected_TD[rows],
            next_T=self.next_T[rows],
            context=self.context.select(rows),
            positions=self.positions.select(index),
        )

    def to(self, device: torch.device) -> Rows:
        """The same on another device."""
        return replace(
            self,
            reference_TD=self.reference_TD.to(device),
            candidate_TD=self.candidate_TD.to(device),
            corrected_TD=None if self.corrected_TD is None else self.corrected_TD.to(device),
            next_T=self.next_T.to(device),
            context=self.context.to(device),
        )

    def spread(self, count: int) -> Rows:
        """At most `count` rows, evenly spaced."""
        if len(self) <= count:
            return self
        return self.select(np.linspace(0, len(self) - 1, count).round().astype(np.int64))


def gather(
    corpus: Corpus,
    reference: StoredHidden,
    candidate: StoredHidden,
    corrected: StoredHidden | None = None,
    *,
    check_cancelled: Callable[[], None] = lambda: None,
) -> Rows:
    """The scored positions of a corpus of which both models' hidden states are stored."""
    sides = [reference, candidate, *([] if corrected is None else [corrected])]
    parts: list[list[torch.Tensor]] = [[] for _ in sides]
    tokens: list[np.ndarray[tuple[int], np.dtype[np.int64]]] = []
    following: list[np.ndarray[tuple[int], np.dtype[np.int64]]] = []
    for number, window in enumerate(corpus.windows):
        check_cancelled()
        scored = np.flatnonzero(window.scored)
        rows = torch.from_numpy(scored)
        for part, side in zip(parts, sides, strict=True):
            part.append(side.window(number)[rows])
        tokens.append(window.tokens[scored].astype(np.int64))
        following.append(window.tokens[scored + 1].astype(np.int64))
    positions = positions_of(corpus)
    reference_TD, candidate_TD, *more_TD = (torch.cat(part) for part in parts)
    return Rows(
        reference_TD=reference_TD,
        candidate_TD=candidate_TD,
        corrected_TD=more_TD[0] if more_TD else None,
        next_T=torch.from_numpy(np.concatenate(following)),
        context=RowContext(
            position_T=torch.from_numpy(positions.context.astype(np.int64)),
            token_T=torch.from_numpy(np.concatenate(tokens)),
        ),
        positions=positions,
        domains=tuple(document.domain for document in corpus.documents),
    )
