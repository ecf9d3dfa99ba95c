"""Hand-made language models, without weights: what stands in for `workers.decoding.model.Model` in tests."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from workers.decoding.model import Step

Array = NDArray[np.float64]
Logits = Callable[[tuple[int, ...]], Array]


class TableModel:
    """Logits (V,) and hidden state (D,) are functions of the whole text so far."""

    def __init__(self, vocabulary: int, logits: Logits, hidden: Logits | None = None) -> None:
        self.vocabulary = vocabulary
        self.logits = logits
        self.hidden = hidden or (lambda text: np.ones(2))
        self.asked: list[int] = []

    def open(self, prompts: Sequence[Sequence[int]]) -> "TableSession":
        """Rows of the prompts."""
        return TableSession(self, [tuple(prompt) for prompt in prompts])


class TableSession:
    """Keeps the rows' texts and nothing else."""

    def __init__(self, model: TableModel, rows: list[tuple[int, ...]]) -> None:
        self.model = model
        self.rows = rows
        self.prompt_hidden = [
            torch.tensor(np.stack([model.hidden(row[:end]) for end in range(1, len(row) + 1)])) for row in rows
        ]

    @property
    def step(self) -> Step:
        """Of the rows as they are."""
        logits = np.stack([self.model.logits(row) for row in self.rows])
        hidden = np.stack([self.model.hidden(row) for row in self.rows])
        return Step(torch.tensor(logits).float(), torch.tensor(hidden).float())

    def next(self, tokens: Sequence[int], parents: Sequence[int]) -> Step:
        """Rows grow."""
        self.model.asked.append(len(tokens))
        self.rows = [(*self.rows[parent], token) for token, parent in zip(tokens, parents, strict=True)]
        return self.step

    def keep(self, rows: Sequence[int]) -> None:
        """Rows go."""
        self.rows = [self.rows[row] for row in rows]


def random_model(vocabulary: int, *, seed: int = 0, hidden: int = 4, order: int = 2, scale: float = 2.0) -> TableModel:
    """Logits and hidden states drawn anew for each `order` last tokens, the same at every call."""

    def draw(text: tuple[int, ...], kind: int, size: int) -> Array:
        words = np.random.SeedSequence([seed, kind, *text[-order:]])
        return np.random.default_rng(words).normal(size=size)

    return TableModel(
        vocabulary,
        lambda text: scale * draw(text, 0, vocabulary),
        lambda text: draw(text, 1, hidden),
    )


def softmax(logits: Array) -> Array:
    """In float64."""
    made = np.exp(logits - logits.max())
    return np.asarray(made / made.sum())
