"""Chains of layers of two models on the same text, and what they cost.

Names: N windows, L tokens of a window, D hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from workers.diagnosis.attribute.borders import Borders, Link, run_chain
from workers.diagnosis.attribute.matching import Gap, Matching
from workers.diagnosis.attribute.readout import NO_KINDS, kl_sums, states_of
from workers.diagnosis.attribute.sums import Clusters, Sums, difference
from workers.surgery.callbacks import CheckCancelled


def first(gap: Gap) -> tuple[int, int]:
    """The borders at which a gap begins."""
    return gap.after_reference - len(gap.reference), gap.after_candidate - len(gap.candidate)


class Runs:
    """Chains of layers of both models, and the KL of what leaves them, nats a token. `ours`, `theirs`: the layers of
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
