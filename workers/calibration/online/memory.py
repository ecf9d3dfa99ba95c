"""What a refit learns from: positions of recent requests, and positions of the fitting set beside them.

Without the latter a correction forgets what the traffic of the last hour did not show. Everything is in memory alone
and goes with the process: hidden states and token ids are guarded like text.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from app.contracts.text import ShippedText
from app.settings import Settings
from workers.calibration.online.reservoir import Item, ItemsMemory, RecentItems, Reservoir
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
        self._rule = RecentItems(budget_tokens=budget_tokens)
        self._items: ItemsMemory = self._rule.start()
        self._rows: dict[str, Rows] = {}

    @property
    def tokens(self) -> int:
        """Rows that are kept."""
        return self._items.tokens

    def add(self, name: str, rows: Rows) -> None:
        """One more request; the oldest go."""
        if len(rows) == 0:
            return
        self._items = self._rule.add(self._items, Item(name=name, tokens=len(rows)))
        self._rows[name] = _owned(rows)
        names = {item.name for item in self._items.items}
        for gone in self._rows.keys() - names:
            del self._rows[gone]

    def clear(self) -> None:
        """Forgets all: other weights are scored from now on."""
        self._items, self._rows = self._rule.start(), {}

    def all(self) -> list[Learned]:
        """Oldest first."""
        return [Learned(item.name, self._rows[item.name]) for item in self._items.items]


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
    rule = Reservoir(budget_tokens=budget_tokens, seed=seed)
    memory, found = rule.start(), {}
    for window in corpus.windows:
        document = corpus.documents[window.document].id
        name = f"{document}/{window.start}"
        found[name] = Passage(name, window, document)
        memory = rule.add(memory, Item(name=name, tokens=int(window.scored.sum())))
    return [found[item.name] for item in memory.items]


def _owned(rows: Rows) -> Rows:
    """The rows without the prompt's, of whose tensors they are a part."""
    return Rows(
        rows.reference_TD.clone(),
        rows.candidate_TD.clone(),
        rows.next_T.clone(),
        RowContext(rows.context.position_T.clone(), rows.context.token_T.clone()),
    )
