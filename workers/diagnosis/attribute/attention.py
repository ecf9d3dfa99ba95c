"""Where two models look: the Jensen–Shannon divergence of their attention distributions on the same tokens.

p and p̂ are a head's distributions over the keys of one query in reference and candidate. Means are over heads and
queries, without the first query of a window, which can only look at itself.

Attention is transformers' eager one (fused kernels give no distributions), one layer and one window at a time, from the
states at the layer borders. So memory does not grow with depth or text. Models of another depth are compared along
their alignment.

Names: N windows, L tokens of a window, Q queries, K keys, H heads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from app.contracts.errors import ErrorCode, HemostatError
from app.kinds.attribute.blocks import AttentionLayer, AttentionShift
from workers.diagnosis.attribute.borders import Borders, Runner
from workers.diagnosis.attribute.matching import Matching
from workers.diagnosis.attribute.sums import POSITIVE, Clusters, Sums, measured
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.callbacks import CheckCancelled, Progress, never_cancelled, no_progress

# In the place of a probability that rounds to 0, which has no logarithm.
LEAST = 1e-30


def attention_shift(
    reference: Borders,
    candidate: Borders,
    matching: Matching,
    document_N: Sequence[int] | NDArray[np.integer],
    *,
    seed: int = 0,
    progress: Progress = no_progress,
    check_cancelled: CheckCancelled = never_cancelled,
) -> AttentionShift:
    """Every matched pair of layers, on all windows. Raises RECIPE_NOT_APPLICABLE if the numbers of heads differ."""
    heads = [int(borders.runner.skeleton.config.num_attention_heads) for borders in (reference, candidate)]
    if heads[0] != heads[1]:
        raise HemostatError(
            ErrorCode.RECIPE_NOT_APPLICABLE,
            f"the reference has {heads[0]} heads per layer, the candidate {heads[1]}",
            hint="give models with the same number of heads: attention is compared per head",
        )
    pairs = matching.pairs
    layers, whole = Sums(Clusters.of(document_N), (len(pairs),)), Sums(Clusters.of(document_N), ())
    with _Eager(reference) as ours, _Eager(candidate) as theirs:
        for number, (layer, other) in enumerate(pairs):
            progress("attention", number, len(pairs))
            with ours.layer(layer), theirs.layer(other):
                for window in range(len(reference.runner.tokens_NL)):
                    check_cancelled()
                    js_HQ = jensen_shannon(ours.distributions(layer, window), theirs.distributions(other, window))
                    total = [float(js_HQ.sum(dtype=torch.float64))]
                    layers.add(window, total, [js_HQ.numel()], at=number)
                    whole.add(window, total, [js_HQ.numel()])
    progress("attention", len(pairs), len(pairs))
    means = layers.means(seed=seed, support=POSITIVE, check_cancelled=check_cancelled)
    return AttentionShift(
        measured=measured(reference.runner.tokens_NL, document_N),
        layers=tuple(
            AttentionLayer(reference=layer, candidate=other, js=js)
            for (layer, other), js in zip(pairs, means, strict=True)
        ),
        js=whole.mean(seed=seed, support=POSITIVE),
    )


@torch.no_grad()
def jensen_shannon(p_HQK: torch.Tensor, q_HQK: torch.Tensor) -> torch.Tensor:
    """(H, Q) of each row, nats."""
    p, q = p_HQK.clamp_min(LEAST), q_HQK.clamp_min(LEAST)
    middle = (p + q) / 2
    return ((p * (p / middle).log() + q * (q / middle).log()) / 2).sum(-1).clamp_min(0)


class _Seen(Exception):  # noqa: N818 - no error: the rest of the layer need not run
    """Attention has been computed."""


class _Eager:
    """A model that gives the attention distributions of its layers, while in a `with`."""

    def __init__(self, borders: Borders) -> None:
        self._borders = borders
        self._skeleton: Skeleton = borders.runner.skeleton
        self._runner = Runner(self._skeleton, borders.runner.tokens_NL)
        self._kept: torch.Tensor | None = None

    def __enter__(self) -> _Eager:
        config = self._skeleton.model.config
        self._before = config._attn_implementation
        self._skeleton.model.set_attn_implementation("eager")
        return self

    def __exit__(self, *_: object) -> None:
        self._skeleton.model.set_attn_implementation(self._before)

    @contextmanager
    def layer(self, layer: int) -> Iterator[None]:
        """With a layer's weights in memory."""
        module = self._skeleton.block(layer)
        attention: Any = module.self_attn
        handle = attention.register_forward_hook(self._see)
        try:
            yield
        finally:
            handle.remove()
            self._skeleton.release(layer)

    def _see(self, _: nn.Module, __: object, output: Any) -> None:
        self._kept = output[1]
        raise _Seen

    def distributions(self, layer: int, window: int) -> torch.Tensor:
        """(H, Q, K) float32: of every query but the first."""
        with suppress(_Seen):
            self._runner.call(layer, self._borders.read(layer, window, window + 1))
        assert self._kept is not None  # noqa: S101 - the hook has run
        found, self._kept = self._kept[0, :, 1:].to(torch.float32), None
        return found
