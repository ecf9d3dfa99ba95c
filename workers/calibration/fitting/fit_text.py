"""The text of the fits that walk through both models.

Names: N windows, L tokens of a window.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from app.contracts.errors import ErrorCode, HemostatError
from workers.mitigation.split import Split
from workers.text.windows import Corpus


@dataclass(frozen=True)
class FitText:
    """Windows of one length: `tokens_NL` int64, `weight_NL` what each position counts in a fit (0: it is only walked
    through), `document_N` the document of each window."""

    tokens_NL: torch.Tensor
    weight_NL: torch.Tensor
    document_N: torch.Tensor

    @classmethod
    def of(cls, *corpora: Corpus) -> Self:
        """Every position counts. Shorter windows are filled up at their end, which causal attention does not see.
        Documents of each corpus are numbered so that they are spread evenly over all."""
        windows = [(place, window) for place, corpus in enumerate(corpora) for window in corpus.windows]
        shape = (len(windows), max(len(window.tokens) for _, window in windows))
        tokens_NL, weight_NL = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape)
        for row, (_, window) in enumerate(windows):
            tokens_NL[row, : len(window.tokens)] = torch.from_numpy(window.tokens.astype(np.int64))
            weight_NL[row, : len(window.tokens)] = 1.0
        spread = [((window.document + 0.5) / len(corpora[place].documents), place) for place, window in windows]
        number = {at: document for document, at in enumerate(sorted(set(spread)))}
        return cls(tokens_NL, weight_NL, torch.tensor([number[at] for at in spread]))

    def counted(self) -> torch.Tensor:
        """(N) bool: windows with a position that counts."""
        return self.weight_NL.any(1)

    def parts(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(N) bool each: windows of documents that are fitted, and of the eighth that decides. Raises
        `HemostatError(INVALID_REQUEST)` if fewer than two documents have a position that counts."""
        documents = sorted(set(self.document_N[self.counted()].tolist()))
        if len(documents) < 2:
            raise HemostatError(
                ErrorCode.INVALID_REQUEST,
                "the text for the block corrections has fewer than two documents with tokens",
                hint="give at least two documents: some to fit, some to choose",
            )
        split = Split.of(len(documents))
        fitted, held = ([documents[place] for place in part] for part in (split.train, split.held_out))
        return torch.isin(self.document_N, torch.tensor(fitted)), torch.isin(self.document_N, torch.tensor(held))
