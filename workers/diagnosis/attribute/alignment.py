"""Which layer of the candidate is which of the reference's, if their numbers differ, and what each gap costs.

Layers are matched in order so that the sum of their similarities is largest (`matching`). The similarity of two layers
is the mean of two linear CKAs on the same tokens (`similarity`): of what leaves them and of what they add. The
certainty of a pair is the share of resamplings of whole documents that match it again.

A gap's damage is measured, not inferred. The reference runs with this gap alone made as the candidate has it, from the
stored states at the border where the gap begins. The candidate runs with this gap alone made as the reference has it.

Names: N windows, L tokens of a window, R, C layers of reference and candidate.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from app.contracts.report import Mean
from app.kinds.attribute.blocks import LayerAlignment, LayerGap, LayerPair
from workers.diagnosis.attribute.borders import Borders, Link, run_chain
from workers.diagnosis.attribute.matching import Gap, Matching, match
from workers.diagnosis.attribute.readout import kl_sums
from workers.diagnosis.attribute.similarity import Similarity, similarity
from workers.diagnosis.attribute.sums import POSITIVE, Clusters, Sums, difference, measured
from workers.distributions.intervals import FEWEST_CLUSTERS
from workers.surgery.callbacks import CheckCancelled, Progress, never_cancelled, no_progress

Array = NDArray[np.float64]
RESAMPLES = 200


def align(
    reference: Borders,
    candidate: Borders,
    document_N: Sequence[int] | NDArray[np.integer],
    *,
    seed: int = 0,
    progress: Progress = no_progress,
    check_cancelled: CheckCancelled = never_cancelled,
) -> LayerAlignment:
    """Aligns and measures. `document_N`: the document of each window. Raises what `similarity` raises."""
    clusters = Clusters.of(document_N)
    alike = similarity(reference, candidate, clusters, progress=progress, check_cancelled=check_cancelled)
    similarity_RC = _layers(alike)
    matching = match(similarity_RC)
    pair_shares, gap_shares = _stability(alike, matching, seed, check_cancelled)
    runs = _Runs(reference, candidate, clusters, check_cancelled)
    steps = len(matching.gaps) + 2
    gaps = []
    for number, (gap, stability) in enumerate(zip(matching.gaps, gap_shares, strict=True)):
        progress("gaps", number, steps)
        gaps.append(_measured(gap, runs, stability, seed))
    progress("gaps", steps - 2, steps)
    control = runs.control(matching.gaps[0]) if matching.gaps else None
    progress("gaps", steps - 1, steps)
    matched = runs.matched(matching)
    progress("gaps", steps, steps)
    return LayerAlignment(
        measured=measured(reference.runner.tokens_NL, document_N),
        reference_layers=similarity_RC.shape[0],
        candidate_layers=similarity_RC.shape[1],
        pairs=tuple(
            LayerPair(
                reference=ours,
                candidate=theirs,
                similarity=float(similarity_RC[ours, theirs]),
                stability=stability,
            )
            for (ours, theirs), stability in zip(matching.pairs, pair_shares, strict=True)
        ),
        gaps=tuple(gaps),
        total=runs.total.mean(seed=seed, support=POSITIVE),
        matched=matched.mean(seed=seed, support=POSITIVE),
        control=None if control is None else float(control.values()),
    )


def _layers(alike: Similarity, weight_K: Array | None = None) -> Array:
    """(R, C): the mean of the CKA of what leaves two layers and of what they add."""
    found: Array = (alike.states.cka(weight_K)[1:, 1:] + alike.added.cka(weight_K)) / 2
    return found


def _stability(
    alike: Similarity, matching: Matching, seed: int, check_cancelled: CheckCancelled
) -> tuple[list[float | None], list[float | None]]:
    """How often resamplings of clusters give each pair and each gap again; None with too few clusters: one cluster
    drawn again can only return itself."""
    count = len(alike.states.cross_KRC)
    if count < FEWEST_CLUSTERS:
        return [None] * len(matching.pairs), [None] * len(matching.gaps)
    rng = np.random.default_rng(seed)
    pairs, gaps = np.zeros(len(matching.pairs)), np.zeros(len(matching.gaps))
    for _ in range(RESAMPLES):
        check_cancelled()
        drawn = match(_layers(alike, np.bincount(rng.integers(0, count, count), minlength=count).astype(np.float64)))
        again, holes = set(drawn.pairs), set(drawn.gaps)
        pairs += [pair in again for pair in matching.pairs]
        gaps += [gap in holes for gap in matching.gaps]
    return list(map(float, pairs / RESAMPLES)), list(map(float, gaps / RESAMPLES))


def _measured(gap: Gap, runs: _Runs, stability: float | None, seed: int) -> LayerGap:
    swapped = runs.swapped(gap)
    share = _share(swapped, runs.total, seed)
    return LayerGap(
        at_reference=gap.after_reference,
        at_candidate=gap.after_candidate,
        dropped=gap.reference,
        inserted=gap.candidate,
        nats=swapped.mean(seed=seed, support=POSITIVE),
        share=share.mean,
        share_ci=share.ci,
        saved=runs.saved(gap).mean(seed=seed),
        stability=stability,
    )


def _share(part: Sums, whole: Sums, seed: int) -> Mean:
    """Nats over those of the whole at the same positions."""
    found = Sums(part.clusters, ())
    found.top, found.bottom = part.top.copy(), whole.top.copy()
    return found.mean(seed=seed, support=POSITIVE)


def _first(gap: Gap) -> tuple[int, int]:
    """The borders at which a gap begins."""
    return gap.after_reference - len(gap.reference), gap.after_candidate - len(gap.candidate)


class _Runs:
    """Chains of layers of both models, and the KL of what leaves them, nats per token. `total`: KL(reference ‖
    candidate)."""

    def __init__(
        self, reference: Borders, candidate: Borders, clusters: Clusters, check_cancelled: CheckCancelled
    ) -> None:
        self._reference, self._candidate = reference, candidate
        self._clusters, self._check_cancelled = clusters, check_cancelled
        self._ours, self._theirs = self._links(reference), self._links(candidate)
        self._last_NLD = self._last(reference)
        self.total = self._kl(candidate, self._last(candidate))

    def swapped(self, gap: Gap) -> Sums:
        """The reference with this gap alone."""
        start, other = _first(gap)
        chain = self._theirs[other : gap.after_candidate] + self._ours[gap.after_reference :]
        return self._kl(self._reference, self._run(chain, self._reference, start))

    def saved(self, gap: Gap) -> Sums:
        """The candidate without this gap alone, against the candidate."""
        other, start = _first(gap)
        chain = self._ours[other : gap.after_reference] + self._theirs[gap.after_candidate :]
        return difference(self.total, self._kl(self._candidate, self._run(chain, self._candidate, start)))

    def control(self, gap: Gap) -> Sums:
        """The reference's own layers from where a gap begins."""
        start, _ = _first(gap)
        return self._kl(self._reference, self._run(self._ours[start:], self._reference, start))

    def matched(self, matching: Matching) -> Sums:
        """The reference with every matched layer, embedding and head made the candidate's, and no gap."""
        partner = dict(matching.pairs)
        chain = [
            self._theirs[partner[layer]] if layer in partner else self._ours[layer] for layer in range(len(self._ours))
        ]
        return self._kl(self._candidate, self._run(chain, self._candidate, 0))

    @staticmethod
    def _links(borders: Borders) -> list[Link]:
        return [(borders.runner, layer) for layer in range(borders.runner.layers)]

    @staticmethod
    def _last(borders: Borders) -> torch.Tensor:
        """(N, L, D): what leaves the last layer."""
        return borders.read(len(borders) - 1, 0, len(borders.runner.tokens_NL))

    def _run(self, chain: Sequence[Link], entering: Borders, border: int) -> torch.Tensor:
        return run_chain(chain, entering, border, check_cancelled=self._check_cancelled)

    def _kl(self, head: Borders, last_NLD: torch.Tensor) -> Sums:
        """KL of the reference against these states (N, L, D), read by one model's norm and head."""
        reference = self._reference.runner.skeleton, self._last_NLD
        candidate = head.runner.skeleton, last_NLD
        return kl_sums(reference, candidate, self._clusters, check_cancelled=self._check_cancelled)
