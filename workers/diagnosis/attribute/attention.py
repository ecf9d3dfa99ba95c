"""Where two models look: their attention distributions on the same tokens, head by head and layer by layer.

p and p̂ are a head's distributions over the keys of one query in reference and candidate. KL(p‖p̂), Jensen–Shannon
(both nats) and total variation of the two; of each the *sink mass* p(first token) (Xiao et al., "Efficient Streaming
Language Models with Attention Sinks", 2309.17453), the entropy in nats, and the *effective range*: the mean distance in
tokens to what is attended, the sink left out, Σ p(j)(i − j) / Σ p(j) over j ≥ 1. Means are over queries; the first of a
window, which can only look at itself, does not count.

Attention is transformers' eager one (fused kernels give no distributions), one layer and one window at a time, from the
states at the layer borders, so that memory does not grow with depth or text; in the dtype of the skeletons: in bf16 the
distributions are rounded to three digits, which is a floor of about 1e-5 nats. Models of another depth are compared
along their alignment. Where the numbers of heads differ, each of the candidate's is compared with the reference's
nearest head by Jensen–Shannon, each of those taken once where there are enough.

Names: N windows, L tokens of a window, Q queries, K keys, H heads, P pairs of layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import nn

from workers.diagnosis.attribute.borders import Borders, Runner
from workers.diagnosis.attribute.matching import Matching
from workers.diagnosis.attribute.sums import Clusters, Sums
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.callbacks import CheckCancelled, Progress, never_cancelled, no_progress

# A probability that rounds to 0 in one model and not in the other would cost infinitely many nats: this one means
# it, so that no KL exceeds 69 nats.
LEAST = 1e-30
# Heads whose distributions are compared at once.
_HEADS = 4


@dataclass(frozen=True)
class Looks:
    """One model's heads, (P, H) each: sink mass, entropy, effective range."""

    sink: Sums
    entropy: Sums
    reach: Sums


@dataclass(frozen=True)
class AttentionShift:
    """`pairs` of layers (reference, candidate); `kl`, `js`, `tv` (P, H) over the candidate's heads; `partner_PH` the
    reference's head that each is compared with (−1: none, the candidate's has more heads than can be matched)."""

    pairs: tuple[tuple[int, int], ...]
    kl: Sums
    js: Sums
    tv: Sums
    reference: Looks
    candidate: Looks
    partner_PH: NDArray[np.intp]


def attention_shift(
    reference: Borders,
    candidate: Borders,
    matching: Matching,
    document_N: Sequence[int] | NDArray[np.integer],
    *,
    progress: Progress = no_progress,
    check_cancelled: CheckCancelled = never_cancelled,
) -> AttentionShift:
    """Every matched pair of layers, on all windows. The two models may differ in depth and heads."""
    clusters = Clusters.of(document_N)
    pairs = matching.pairs
    heads = [int(borders.runner.skeleton.config.num_attention_heads) for borders in (reference, candidate)]
    looks = [_looks(clusters, len(pairs), count) for count in heads]
    cross = [Sums(clusters, (len(pairs), *heads)) for _ in range(3)]
    aligned = [Sums(clusters, (len(pairs), heads[1])) for _ in range(3)]
    same = heads[0] == heads[1]
    with _Eager(reference) as ours, _Eager(candidate) as theirs:
        for number, (layer, other) in enumerate(pairs):
            progress("attention", number, len(pairs))
            with ours.layer(layer), theirs.layer(other):
                for window in range(len(reference.runner.tokens_NL)):
                    check_cancelled()
                    p_HQK, q_HQK = ours.distributions(layer, window), theirs.distributions(other, window)
                    for into, found_HQK in zip(looks, (p_HQK, q_HQK), strict=True):
                        _look(into, number, window, found_HQK)
                    if same:
                        _compare(aligned, (number,), window, p_HQK, q_HQK)
                    else:
                        for head in range(heads[0]):
                            check_cancelled()
                            _compare(cross, (number, head), window, p_HQK[head : head + 1], q_HQK)
    progress("attention", len(pairs), len(pairs))
    partner_PH = np.tile(np.arange(heads[1]), (len(pairs), 1)) if same else _partners(cross[1])
    if not same:
        aligned = [_chosen(sums, partner_PH) for sums in cross]
    return AttentionShift(pairs, aligned[0], aligned[1], aligned[2], looks[0], looks[1], partner_PH)


def over_heads(sums: Sums) -> Sums:
    """(P) from (P, H)."""
    found = Sums(sums.clusters, sums.shape[:1])
    found.top, found.bottom = sums.top.sum(-1), sums.bottom.sum(-1)
    return found


@torch.no_grad()
def distances(p_HQK: torch.Tensor, q_HQK: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """KL(p‖q), JS, TV of each row, (H, Q) each; nats, nats, a probability."""
    p, q = p_HQK.clamp_min(LEAST), q_HQK.clamp_min(LEAST)
    middle = (p + q) / 2
    # − p + q adds up to nothing over a row and keeps every summand from being negative
    kl = (p * (p / q).log() - p + q).sum(-1)
    js = ((p * (p / middle).log() + q * (q / middle).log()) / 2).sum(-1)
    tv = (p_HQK - q_HQK).abs().sum(-1) / 2
    return kl.clamp_min(0), js.clamp_min(0), tv


def _looks(clusters: Clusters, pairs: int, heads: int) -> Looks:
    return Looks(*(Sums(clusters, (pairs, heads)) for _ in range(3)))


def _look(into: Looks, number: int, window: int, p_HQK: torch.Tensor) -> None:
    queries, keys = p_HQK.shape[1:]
    # query i of the window is row i − 1: the first one is not there
    distance_QK = (torch.arange(1, queries + 1)[:, None] - torch.arange(keys)[None]).clamp_min(0).to(p_HQK.dtype)
    beyond_HQK = p_HQK[..., 1:]
    entropy_H = -torch.xlogy(p_HQK, p_HQK).sum((1, 2), dtype=torch.float64)
    count = np.full((1, len(p_HQK)), float(queries))
    into.sink.add(window, p_HQK[..., 0].sum(1, dtype=torch.float64)[None].numpy(), count, at=number)
    into.entropy.add(window, entropy_H[None].numpy(), count, at=number)
    reach_H = (beyond_HQK * distance_QK[:, 1:]).sum((1, 2), dtype=torch.float64)
    into.reach.add(window, reach_H[None].numpy(), beyond_HQK.sum((1, 2), dtype=torch.float64)[None].numpy(), at=number)


def _compare(into: list[Sums], at: tuple[int, ...], window: int, p_HQK: torch.Tensor, q_HQK: torch.Tensor) -> None:
    """Of all heads of the second with those of the first, one with one, or one with all."""
    parts: list[list[torch.Tensor]] = [[], [], []]
    for start in range(0, len(q_HQK), _HEADS):
        heads = slice(start, start + _HEADS)
        found = distances((p_HQK if len(p_HQK) == 1 else p_HQK[heads]).expand_as(q_HQK[heads]), q_HQK[heads])
        for part, value_HQ in zip(parts, found, strict=True):
            part.append(value_HQ.sum(1, dtype=torch.float64))
    count = np.full((1, len(q_HQK)), float(q_HQK.shape[1]))
    for sums, part in zip(into, parts, strict=True):
        sums.add(window, torch.cat(part)[None].numpy(), count, at=at)


def _partners(js: Sums) -> NDArray[np.intp]:
    """(P, H of the candidate): the nearest of the reference's heads."""
    nearest = []
    for js_HH in js.values():
        count, others = js_HH.shape
        if others <= count:
            rows, columns = linear_sum_assignment(js_HH)
            nearest.append(rows[np.argsort(columns)])
        else:
            nearest.append(js_HH.argmin(0))
    return np.array(nearest, dtype=np.intp)


def _chosen(cross: Sums, partner_PH: NDArray[np.intp]) -> Sums:
    found = Sums(cross.clusters, partner_PH.shape)
    pair, head = np.indices(partner_PH.shape)
    found.top, found.bottom = cross.top[:, pair, partner_PH, head], cross.bottom[:, pair, partner_PH, head]
    return found


class _Seen(Exception):  # noqa: N818 - no error: the rest of the layer need not run
    """Attention has been computed."""


class _Eager:
    """A model whose layers' attention distributions can be had, while in a `with`."""

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
