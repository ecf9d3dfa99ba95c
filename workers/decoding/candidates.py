"""The few most probable tokens of a row, in an order that does not depend on how a library breaks ties.

Names: R rows, V vocabulary, K candidates.
"""

from __future__ import annotations

import torch

# Logits are rounded to bf16 by most engines, and so tie often; so many more are looked at before the whole row is.
_SPARE = 16


def best(scores_RV: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(values, ids), each (R, K ≤ k): the largest, descending, of equal ones the lower id first."""
    vocabulary = scores_RV.shape[1]
    k = min(k, vocabulary)
    few = min(vocabulary, k + _SPARE)
    index_RK = scores_RV.topk(few, dim=1).indices.sort(1).values
    value_RK, order_RK = scores_RV.gather(1, index_RK).sort(dim=1, descending=True, stable=True)
    if few < vocabulary and bool((value_RK[:, k - 1] == value_RK[:, -1]).any()):
        value_RK, index_RK = scores_RV.sort(dim=1, descending=True, stable=True)
        return value_RK[:, :k], index_RK[:, :k]
    return value_RK[:, :k], index_RK.gather(1, order_RK)[:, :k]
