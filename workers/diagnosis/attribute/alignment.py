"""Which layer of the candidate is which of the reference's, where their numbers differ; and what each gap costs.

Layers are matched in order so that the sum of their similarities is largest (`matching`), the similarity of two layers
being the mean of two linear CKAs on the same tokens (`similarity`): of what leaves them and of what they add. The
certainty of a pair is the share of resamplings of whole documents in which it is matched again.

A gap's damage is measured, not inferred: the reference is run with this gap alone made as the candidate has it (layers
left out, or the candidate's own put in), from the stored states at the border where it begins; and the candidate is run
with this gap alone made as the reference has it.

Names: N windows, L tokens of a window, R, C layers of reference and candidate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from workers.diagnosis.attribute.borders import Borders, Link, run_chain
from workers.diagnosis.attribute.matching import Gap, Matching, match
from workers.diagnosis.attribute.numbering import Origin, origins
from workers.diagnosis.attribute.readout import NO_KINDS, kl_sums, states_of
from workers.diagnosis.attribute.similarity import Similarity, similarity
from workers.diagnosis.attribute.sums import Clusters, Sums, difference
from workers.distributions.intervals import FEWEST_CLUSTERS
from workers.surgery.callbacks import CheckCancelled, Progress, never_cancelled, no_progress

Array = NDArray[np.float64]
RESAMPLES = 200


@dataclass(frozen=True)
class GapDamage:
    """One gap. `swapped`: KL(reference ‖ reference with this gap), nats per token; `saved`: KL of the candidate − KL of
    the candidate without this gap, paired. `before`, `after`: CKA of the states that enter and that leave it.
    `stability`: share of resamplings in which the same layers have no partner; 0 where none was made."""

    gap: Gap
    origins: tuple[Origin, ...]
    swapped: Sums
    saved: Sums
    before: float
    after: float
    stability: float


@dataclass(frozen=True)
class Alignment:
    """`similarity_RC`: what was maximized. `states`: CKA at borders (R + 1, C + 1). `stability_P`: of each pair, from
    `resamplings` of the clusters; 0 where these are too few to be drawn again.

    `total`: KL(reference ‖ candidate). `matched`: KL of the reference with all matched layers, embedding and head made
    the candidate's, and no gap. `control`: KL of the reference's own layers run again from the first gap, which must be
    exactly 0; None where there is no gap.
    """

    matching: Matching
    similarity_RC: Array
    states: Array
    stability_P: tuple[float, ...]
    gaps: tuple[GapDamage, ...]
    total: Sums
    matched: Sums
    control: Sums | None
    resamplings: int


def align(
    reference: Borders,
    candidate: Borders,
    document_N: Sequence[int] | NDArray[np.integer],
    *,
    kinds: Mapping[str, torch.Tensor] = NO_KINDS,
    seed: int = 0,
    progress: Progress = no_progress,
    check_cancelled: CheckCancelled = never_cancelled,
) -> Alignment:
    """Aligns and measures. `document_N`: the document of each window; `kinds`: masks (N, L) of tokens, by each of which
    nats are summed, too. Raises what `similarity` raises."""
    clusters = Clusters.of(document_N)
    alike = similarity(reference, candidate, clusters, progress=progress, check_cancelled=check_cancelled)
    similarity_RC = _layers(alike)
    matching = match(similarity_RC)
    # drawing one document again can only return itself
    resamplings = RESAMPLES if clusters.count >= FEWEST_CLUSTERS else 0
    pair_shares, gap_shares = _stability(alike, matching, resamplings, seed, check_cancelled)
    states = alike.states.cka()
    runs = Runs(reference, candidate, clusters, check_cancelled, kinds)
    gaps = []
    steps = len(matching.gaps) + 2
    for number, gap in enumerate(matching.gaps):
        progress("gaps", number, steps)
        gaps.append(
            GapDamage(
                gap=gap,
                origins=origins(reference, candidate, gap),
                swapped=runs.swapped(gap),
                saved=runs.saved(gap),
                before=float(states[first(gap)]),
                after=float(states[gap.after_reference, gap.after_candidate]),
                stability=gap_shares[number],
            )
        )
    progress("gaps", steps - 2, steps)
    control = runs.control(matching.gaps[0]) if matching.gaps else None
    progress("gaps", steps - 1, steps)
    matched = runs.matched(matching)
    progress("gaps", steps, steps)
    return Alignment(
        matching,
        similarity_RC,
        states,
        pair_shares,
        tuple(gaps),
        runs.total,
        matched,
        control,
        resamplings,
    )


def _layers(alike: Similarity, weight_K: Array | None = None) -> Array:
    """(R, C): the mean of the CKA of what leaves two layers and of what they add."""
    found: Array = (alike.states.cka(weight_K)[1:, 1:] + alike.added.cka(weight_K)) / 2
    return found


def _stability(
    alike: Similarity, matching: Matching, resamplings: int, seed: int, check_cancelled: CheckCancelled
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """How often each pair and each gap comes again where clusters are drawn with replacement."""
    count = len(alike.states.cross_KRC)
    rng = np.random.default_rng(seed)
    pairs, gaps = np.zeros(len(matching.pairs)), np.zeros(len(matching.gaps))
    for _ in range(resamplings):
        check_cancelled()
        drawn = match(_layers(alike, np.bincount(rng.integers(0, count, count), minlength=count).astype(np.float64)))
        again, holes = set(drawn.pairs), set(drawn.gaps)
        pairs += [pair in again for pair in matching.pairs]
        gaps += [gap in holes for gap in matching.gaps]
    draws = max(1, resamplings)
    return tuple(float(share) for share in pairs / draws), tuple(float(share) for share in gaps / draws)


def first(gap: Gap) -> tuple[int, int]:
    """The borders at which a gap begins."""
    return gap.after_reference - len(gap.reference), gap.after_candidate - len(gap.candidate)


class Runs:
    """Chains of layers of both models, and the KL of what leaves them, nats per token. `ours`, `theirs`: the layers of
    reference and candidate; `total`: KL(reference ‖ candidate). `kinds`: masks (N, L) of tokens, by each of which all
    is summed, too."""

    def __init__(
        self,
        reference: Borders,
        candidate: Borders,
        clusters: Clusters,
        check_cancelled: CheckCancelled,
        kinds: Mapping[str, torch.Tensor] = NO_KINDS,
    ) -> None:
        self.reference, self.candidate, self._kinds = reference, candidate, kinds
        self.clusters, self.check_cancelled = clusters, check_cancelled
        self.ours, self.theirs = self._links(reference), self._links(candidate)
        self._last_NLD = last(reference)
        self.total = self.kl(candidate, last(candidate))

    def swapped(self, gap: Gap) -> Sums:
        """The reference with this gap alone."""
        start, other = first(gap)
        chain = self.theirs[other : gap.after_candidate] + self.ours[gap.after_reference :]
        return self.kl(self.reference, self._run(chain, self.reference, start))

    def saved(self, gap: Gap) -> Sums:
        """The candidate without this gap alone, against the candidate."""
        other, start = first(gap)
        chain = self.ours[other : gap.after_reference] + self.theirs[gap.after_candidate :]
        return difference(self.total, self.kl(self.candidate, self._run(chain, self.candidate, start)))

    def control(self, gap: Gap) -> Sums:
        """The reference's own layers from where a gap begins."""
        start, _ = first(gap)
        return self.kl(self.reference, self._run(self.ours[start:], self.reference, start))

    def matched(self, matching: Matching) -> Sums:
        """The reference with every matched layer, embedding and head made the candidate's, and no gap."""
        partner = dict(matching.pairs)
        chain = [
            self.theirs[partner[layer]] if layer in partner else self.ours[layer] for layer in range(len(self.ours))
        ]
        return self.kl(self.candidate, self._run(chain, self.candidate, 0))

    @staticmethod
    def _links(borders: Borders) -> list[Link]:
        return [(borders.runner, layer) for layer in range(borders.runner.layers)]

    def _run(self, chain: Sequence[Link], entering: Borders, border: int) -> torch.Tensor:
        return run_chain(chain, entering, border, check_cancelled=self.check_cancelled)

    def kl(self, head: Borders, last_NLD: torch.Tensor) -> Sums:
        """KL of the reference against these states (N, L, D), read by one model's norm and head."""
        return kl_sums(
            (self.reference.runner.skeleton, self._last_NLD),
            [(head.runner.skeleton, states_of(last_NLD))],
            self.clusters,
            kinds=self._kinds,
            check_cancelled=self.check_cancelled,
        )[0]


def last(borders: Borders) -> torch.Tensor:
    """(N, L, D): what leaves the last layer."""
    return borders.read(len(borders) - 1, 0, len(borders.runner.tokens_NL))
