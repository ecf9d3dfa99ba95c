"""What a refit learns from: positions of recent requests, and positions of the fitting set beside them.

Without the latter a correction forgets what the traffic of the last hour did not show. Everything is in memory alone
and goes with the process: hidden states and token ids are guarded like text.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from app.contracts.text import ShippedText
from app.settings import Settings
from workers.calibration.online.scoring import Rows
from workers.calibrators.protocol import RowContext
from workers.text.sources import load_documents
from workers.text.tokenization import load_tokenizer
from workers.text.windows import Window, make_windows

# Windows of the fitting set, in tokens, where the models take as many.
WINDOW = 512


@dataclass(frozen=True)
class Learned:
    """Rows of a request, or of a window of a document. `name` distinguishes it from others and holds no text.

    `document`: what a window is of. Windows of one document resemble each other, and go together.
    """

    name: str
    rows: Rows
    document: str = ""

    @property
    def whole(self) -> str:
        """The document, or the request itself."""
        return self.document or self.name


class RecentRows:
    """Rows of the most recent requests, at most `budget_tokens` of them."""

    def __init__(self, budget_tokens: int) -> None:
        self._budget_tokens = budget_tokens
        self._rows: dict[str, Rows] = {}

    @property
    def tokens(self) -> int:
        """Rows that are kept."""
        return sum(map(len, self._rows.values()))

    def add(self, name: str, rows: Rows) -> None:
        """One more request; the oldest go. One that alone exceeds the budget is left out."""
        if not 0 < len(rows) <= self._budget_tokens:
            return
        self._rows.pop(name, None)
        self._rows[name] = _owned(rows)
        while self.tokens > self._budget_tokens:
            del self._rows[next(iter(self._rows))]

    def clear(self) -> None:
        """Forgets all: other weights are scored from now on."""
        self._rows = {}

    def all(self) -> list[Learned]:
        """Oldest first."""
        return [Learned(name, rows) for name, rows in self._rows.items()]


@dataclass(frozen=True)
class Passage:
    """A window of a document of the fitting set."""

    name: str
    window: Window
    document: str

    @property
    def tokens(self) -> list[int]:
        """What both models read."""
        found: list[int] = self.window.tokens.tolist()
        return found

    def learned(self, reference_TD: torch.Tensor, candidate_TD: torch.Tensor) -> Learned:
        """Its scored positions, from both models' hidden states of its tokens."""
        scored = np.flatnonzero(self.window.scored)
        index = torch.from_numpy(scored)
        tokens_T = torch.from_numpy(self.window.tokens.astype(np.int64))
        context = RowContext(position_T=index + 1, token_T=tokens_T[index])
        rows = Rows(reference_TD[index], candidate_TD[index], tokens_T[index + 1], context)
        return Learned(self.name, rows, self.document)


def passages(settings: Settings, tokenizer: Path, *, longest: int, budget_tokens: int, seed: int = 0) -> list[Passage]:
    """A fixed random sample of the shipped calibration corpus, which shares no document with any shipped test.

    At most `budget_tokens` positions, in windows of at most `longest` tokens; the same for the same arguments.
    """
    if budget_tokens < 1:
        return []
    loaded = load_tokenizer(tokenizer)
    documents = load_documents(ShippedText(source="shipped", corpus="calibration"), settings=settings, tokenizer=loaded)
    corpus = make_windows(documents, loaded, min(WINDOW, longest))
    found = []
    for window in corpus.windows:
        document = corpus.documents[window.document].id
        found.append(Passage(f"{document}/{window.start}", window, document))
    # A bottom-k sample (Cohen and Kaplan 2007): every name has a pseudo-random key, the smallest keys are kept.
    found.sort(key=lambda one: hashlib.blake2b(f"{seed}\0{one.name}".encode(), digest_size=8).digest())
    ends = np.cumsum([int(one.window.scored.sum()) for one in found])
    return found[: int(np.searchsorted(ends, budget_tokens, side="right"))]


def _owned(rows: Rows) -> Rows:
    """The rows without the prompt's, of whose tensors they are a part."""
    return Rows(
        rows.reference_TD.clone(),
        rows.candidate_TD.clone(),
        rows.next_T.clone(),
        RowContext(rows.context.position_T.clone(), rows.context.token_T.clone()),
        rows.stream,
    )
