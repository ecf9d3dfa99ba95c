"""What a calibrator is fitted on: hidden states of both models at the same positions of the same text."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from workers.calibrators.protocol import RowContext
from workers.distributions.head import Head


@dataclass(frozen=True)
class FitData:
    """T rows, one per scored position.

    `reference_TD` [T, D_ref] and `candidate_TD` [T, D] are final hidden states in the engine's dtype (they may be
    memory-mapped), `document_T` int64 shows which rows share a document.
    """

    reference_TD: torch.Tensor
    candidate_TD: torch.Tensor
    context: RowContext
    document_T: torch.Tensor
    reference_head: Head
    candidate_head: Head

    def __post_init__(self) -> None:
        rows = len(self.document_T)
        columns = (self.reference_TD, self.candidate_TD, self.context.position_T, self.context.token_T)
        if any(len(column) != rows for column in columns):
            raise ValueError(f"rows differ: {[len(column) for column in columns]} and {rows} documents")
        if self.reference_TD.shape[1] != self.reference_head.hidden_size:
            raise ValueError("the reference's hidden states are not of its head's width")
        if self.candidate_TD.shape[1] != self.candidate_head.hidden_size:
            raise ValueError("the candidate's hidden states are not of its head's width")
        if self.reference_head.vocabulary != self.candidate_head.vocabulary:
            raise ValueError("the heads have different vocabularies")

    def __len__(self) -> int:
        return len(self.document_T)

    def select(self, rows_T: torch.Tensor) -> FitData:
        """Some of the rows; an int64 index or a bool mask."""
        return replace(
            self,
            reference_TD=self.reference_TD[rows_T],
            candidate_TD=self.candidate_TD[rows_T],
            context=self.context.select(rows_T),
            document_T=self.document_T[rows_T],
        )

    def to(self, device: torch.device) -> FitData:
        """The same rows on another device; the heads stay where they are."""
        return replace(
            self,
            reference_TD=self.reference_TD.to(device),
            candidate_TD=self.candidate_TD.to(device),
            context=self.context.to(device),
            document_T=self.document_T.to(device),
        )

    def at_most(self, rows: int, seed: int) -> FitData:
        """Not more than `rows` rows: all, or a seeded draw of single rows, in order."""
        if len(self) <= rows:
            return self
        drawn = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))[:rows]
        return self.select(drawn.sort().values)

    def split(self, share: float, seed: int) -> tuple[FitData, FitData]:
        """(the rest, about `share` of the documents): whole documents, a seeded draw, one of each at least."""
        documents = torch.unique(self.document_T)
        if len(documents) < 2:
            raise ValueError("a single document cannot be split")
        order = torch.randperm(len(documents), generator=torch.Generator().manual_seed(seed))
        count = min(max(1, round(share * len(documents))), len(documents) - 1)
        held = torch.isin(self.document_T, documents[order[:count]])
        return self.select(~held), self.select(held)
