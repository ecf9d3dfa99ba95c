"""Which weights go, given a score: exact numbers, of each row, of the whole matrix, or N of every M along the input.

Of equal scores the earlier index goes first, row by row. Weights that are 0 already go before all others: they count.

Shapes: O output dimension, I input dimension.
"""

from dataclasses import dataclass

import torch

from app.recipes.base import Sparse


def count_to_prune(sparsity: float, elements: int) -> int:
    """How many of `elements` weights go."""
    return min(elements, round(sparsity * elements))


@dataclass(frozen=True)
class Quota:
    """How many weights of a matrix go: `total`, spread evenly over its rows where `by_row`; or, with `pattern`, all but
    N of every M. `share` is what the step asked for."""

    total: int
    by_row: bool
    share: float
    pattern: tuple[int, int] | None = None

    def of_rows(self, outputs: int) -> torch.Tensor:
        """(O) how many go of each row; where they cannot be equal, the first rows lose one more."""
        each, more = divmod(self.total, outputs)
        return each + (torch.arange(outputs) < more).to(torch.int64)


def quota_of(step: Sparse, outputs: int, inputs: int, *, scope: str) -> Quota:
    """What a step asks of a matrix where every matrix has the same share."""
    if step.pattern is not None:
        return quota_of_pattern(*step.n_of_m(), outputs, inputs)
    if scope == "row":
        return Quota(outputs * count_to_prune(step.share, inputs), by_row=True, share=step.share)
    return Quota(count_to_prune(step.share, outputs * inputs), by_row=False, share=step.share)


def quota_of_pattern(kept: int, of: int, outputs: int, inputs: int) -> Quota:
    """All but `kept` of every `of` weights of a matrix go; `of` divides `inputs`."""
    return Quota(outputs * inputs // of * (of - kept), by_row=True, share=1 - kept / of, pattern=(kept, of))


def zeros_first(score_OI: torch.Tensor, weight_OI: torch.Tensor) -> torch.Tensor:
    """Scores (none negative) such that weights that are 0 go first."""
    return score_OI.masked_fill(weight_OI == 0, -1.0)


def mask(score_OI: torch.Tensor, quota: Quota) -> torch.Tensor:
    """True if a weight goes."""
    if quota.pattern is not None:
        return mask_pattern(score_OI, *quota.pattern)
    if quota.by_row:
        return lowest(score_OI, quota.of_rows(len(score_OI)))
    return lowest(score_OI.reshape(1, -1), torch.tensor([quota.total])).reshape(score_OI.shape)


def lowest(score_RI: torch.Tensor, counts_R: torch.Tensor) -> torch.Tensor:
    """True at the `counts_R[r]` lowest scores of each row r."""
    most = int(counts_R.max())
    if most == 0:
        return torch.zeros_like(score_RI, dtype=torch.bool)
    if int(counts_R.min()) == most:
        threshold_R1 = score_RI.kthvalue(most, dim=1, keepdim=True).values
    else:
        threshold_R1 = score_RI.sort(dim=1).values.gather(1, (counts_R - 1).clamp(min=0)[:, None])
    below_RI = score_RI < threshold_R1
    ties_RI = score_RI == threshold_R1
    left_R1 = counts_R[:, None] - below_RI.sum(dim=1, keepdim=True)
    gone_RI = below_RI | (ties_RI & (ties_RI.cumsum(dim=1, dtype=torch.int32) <= left_R1))
    return gone_RI & (counts_R > 0)[:, None]


def mask_pattern(score_OI: torch.Tensor, kept: int, of: int) -> torch.Tensor:
    """True at all but the `kept` highest of every `of` consecutive scores of a row; `of` divides I."""
    groups = score_OI.reshape(-1, of)
    order = groups.argsort(dim=1, stable=True)
    gone = torch.zeros_like(groups, dtype=torch.bool).scatter_(1, order[:, : of - kept], value=True)
    return gone.reshape(score_OI.shape)
