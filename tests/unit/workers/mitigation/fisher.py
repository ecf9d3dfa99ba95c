"""The Fisher information of a model at its linear layers, gathered as the steps do it."""

from typing import Any

import torch

from app.models.checkpoint import CheckpointInfo
from workers.mitigation.gradients import Gatherer, Tape, gather_fisher
from workers.surgery.blockwise.skeleton import Skeleton


def fisher_of(
    info: CheckpointInfo,
    read: Any,
    tokens_NL: torch.Tensor,
    scratch: Any,
    *,
    names: frozenset[str] | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.bfloat16,
    callbacks: dict[str, Any] | None = None,
    **gathered: Any,
) -> dict[str, Any]:
    """Tensor name → `LayerGradients`."""
    skeleton = Skeleton(info, read, device="cpu", dtype=dtype)
    tape = Tape(skeleton, tokens_NL, scratch, name="fisher", **(callbacks or {}))
    gatherer = Gatherer(names or frozenset(info.tensors), tape.positions, scratch, **gathered)
    gather_fisher(tape, gatherer, seed)
    return gatherer.found
