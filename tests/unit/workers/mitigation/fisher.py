"""The Fisher information of a model at its linear layers, gathered as the steps do it."""

import torch

from workers.mitigation.gradients import Gatherer, Tape, gather_fisher
from workers.surgery.blockwise.skeleton import Skeleton


def fisher_of(info, read, tokens_NL, scratch, *, names=None, seed=0, dtype=torch.bfloat16, callbacks=None, **gathered):
    """Tensor name → `LayerGradients`."""
    skeleton = Skeleton(info, read, device="cpu", dtype=dtype)
    tape = Tape(skeleton, tokens_NL, scratch, name="fisher", **(callbacks or {}))
    gatherer = Gatherer(names or frozenset(info.tensors), tape.positions, scratch, **gathered)
    gather_fisher(tape, gatherer, seed)
    return gatherer.found
