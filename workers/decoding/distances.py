"""How far two models are from each other once their distributions are shaped as a sampler shapes them: KL, TV and top-1
after temperature, top-k, top-p, min-p, eta or typical, from stored hidden states, without another forward pass.

p is the reference's next-token distribution at a position, q the candidate's, each shaped by its own rule, so that each
has a support of its own. Over the full vocabulary:

* TV = ½ Σ |p − q|, always finite; 1 − TV is the share of the shaped candidate's drafts that speculative decoding takes.
* KL(p‖q) = Σ p ln(p/q), in nats, over p's support. It is infinite if p's support holds a token that q's does not. Then
  the candidate never says what the reference may say, and `lost` is p's mass of such tokens. A mean of KL is over the
  positions where it is finite, and is beside the share of positions where it is not.
* top-1: whether the most probable token is the same, of equal ones the lowest id. Only typical sampling can change it:
  every other rule keeps the order and the first token.
* supports differ where a token is left in one and not in the other.

Products with the heads are float32, sums float64. Names: T positions, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from app.contracts.decoding import Shaping, TemperatureSampling
from workers.decoding.truncation import kept
from workers.distributions.head import Head
from workers.distributions.intervals import Clusters, Estimate

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
# The head is read once a chunk of about so many logits, 32 MiB in float32; a dozen passes over the vocabulary follow,
# which take half the time where their tables stay in the cache: so many logits at once.
_CHUNK_LOGITS: Final = 1 << 23
_TABLE_LOGITS: Final = 1 << 19


@dataclass(frozen=True)
class ShapedDistances:
    """Of each position after one shaping; `kl` is +∞ where it does not exist. Positions whose logits are not finite are
    marked in `finite`, and all else of them is NaN or False."""

    kl: Array
    tv: Array
    lost: Array
    top1: Flags
    supports_differ: Flags
    finite: Flags

    def __len__(self) -> int:
        return len(self.kl)

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """One after the other."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__))


@dataclass(frozen=True)
class ShapedSummary:
    """Means with 95 % intervals, clustered as `Clusters.of` does, over `positions` finite positions.

    `kl` is over those where it exists (None: nowhere), `kl_infinite` the share where it does not.
    """

    positions: int
    kl: Estimate | None
    kl_infinite: Estimate
    tv: Estimate
    lost: Estimate
    top1: Estimate
    supports_differ: Estimate


def shaped_distances(
    pairs: Iterable[tuple[torch.Tensor, torch.Tensor]],
    reference: Head,
    candidate: Head,
    shapings: Sequence[Shaping],
    *,
    check_cancelled: Callable[[], None] = lambda: None,
    progress: Callable[[int], None] = lambda positions: None,
) -> list[ShapedDistances]:
    """The distances after each of `shapings`, over all positions of `pairs`: (T, D) hidden states of the reference and
    of the candidate at the same positions. `progress` gets how many positions are done.

    Raises ValueError if a pair's lengths or the heads' vocabularies differ, or no position is given.
    """
    if reference.vocabulary != candidate.vocabulary:
        raise ValueError(f"vocabularies of {reference.vocabulary} and {candidate.vocabulary} tokens")
    size = max(8, _CHUNK_LOGITS // reference.vocabulary)
    rows = max(1, _TABLE_LOGITS // reference.vocabulary)
    parts: list[list[ShapedDistances]] = [[] for _ in shapings]
    done = 0
    with torch.inference_mode():
        for reference_TD, candidate_TD in pairs:
            if len(reference_TD) != len(candidate_TD):
                raise ValueError(f"{len(reference_TD)} and {len(candidate_TD)} positions")
            for one, other in zip(torch.split(reference_TD, size), torch.split(candidate_TD, size), strict=True):
                check_cancelled()
                ours, theirs = torch.split(reference.logits(one), rows), torch.split(candidate.logits(other), rows)
                for reference_RV, candidate_RV in zip(ours, theirs, strict=True):
                    check_cancelled()
                    for made, shaping in zip(parts, shapings, strict=True):
                        made.append(distances_of(reference_RV, candidate_RV, shaping))
                done += len(one)
                progress(done)
    if not done:
        raise ValueError("a distance of no positions does not exist")
    return [ShapedDistances.concat(made) for made in parts]


def distances_of(reference_TV: torch.Tensor, candidate_TV: torch.Tensor, shaping: Shaping) -> ShapedDistances:
    """The distances of two tables of logits after `shaping`."""
    finite_T = reference_TV.isfinite().all(1) & candidate_TV.isfinite().all(1)
    if not bool(finite_T.all()):
        reference_TV, candidate_TV = (
            table.masked_fill(~finite_T[:, None], 0) for table in (reference_TV, candidate_TV)
        )
    p_TV, log_p_TV, in_p_TV = _shaped(reference_TV, shaping)
    q_TV, log_q_TV, in_q_TV = _shaped(candidate_TV, shaping)
    outside_TV = in_p_TV & ~in_q_TV
    terms_TV = torch.where(p_TV > 0, p_TV * (log_p_TV - log_q_TV), 0)
    kl_T = terms_TV.sum(1, dtype=torch.float64).clamp(min=0)
    columns = {
        "kl": kl_T.masked_fill(outside_TV.any(1), torch.inf),
        "tv": (p_TV - q_TV).abs().sum(1, dtype=torch.float64).div(2).clamp(max=1),
        "lost": p_TV.where(outside_TV, 0).sum(1, dtype=torch.float64).clamp(max=1),
    }
    flags = {
        "top1": p_TV.argmax(1) == q_TV.argmax(1),
        "supports_differ": (in_p_TV != in_q_TV).any(1),
    }
    return ShapedDistances(
        **{name: column.masked_fill(~finite_T, torch.nan).cpu().numpy() for name, column in columns.items()},
        **{name: (flag & finite_T).cpu().numpy() for name, flag in flags.items()},
        finite=finite_T.cpu().numpy(),
    )


def summarized(
    distances: ShapedDistances, document: ArrayLike, window: ArrayLike, *, seed: int = 0
) -> ShapedSummary | None:
    """Means with intervals; `document` and `window` are the indices of each position's. None: no position is finite."""
    finite = distances.finite
    if not finite.any():
        return None
    document, window = np.asarray(document)[finite], np.asarray(window)[finite]
    kl = distances.kl[finite]
    exists = np.isfinite(kl)
    columns = [
        ~exists,
        distances.tv[finite],
        distances.lost[finite],
        distances.top1[finite],
        distances.supports_differ[finite],
    ]
    infinite, tv, lost, top1, differ = (
        estimate.within(0.0, 1.0) for estimate in Clusters.of(document, window).means(columns, seed=seed)
    )
    mean = None
    if exists.any():
        (mean,) = Clusters.of(document[exists], window[exists]).means([kl[exists]], seed=seed)
        mean = mean.within(0.0, np.inf)
    return ShapedSummary(int(finite.sum()), mean, infinite, tv, lost, top1, differ)


def _shaped(logits_TV: torch.Tensor, shaping: Shaping) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(probabilities, their logarithms, support); temperature leaves every token, also where p rounds to 0."""
    log_p_TV = (logits_TV / shaping.temperature).log_softmax(1)
    p_TV = log_p_TV.exp()
    if isinstance(shaping, TemperatureSampling):
        return p_TV, log_p_TV, torch.ones_like(p_TV, dtype=torch.bool)
    left_TV = kept(p_TV, shaping)
    in_TV = left_TV > 0
    mass_T1 = p_TV.where(in_TV, 0).sum(1, keepdim=True, dtype=torch.float64)
    log_TV = (log_p_TV - mass_T1.log().to(log_p_TV.dtype)).masked_fill(~in_TV, -torch.inf)
    return left_TV, log_TV, in_TV
