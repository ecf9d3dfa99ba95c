"""The first parts one by one: control, twin, restoring; then all of them together.

The control is the part swapped by itself. Anything but exactly 0 shows a fault of the machinery: a
module changed in place, a state of another batch shape, a weight rounded on its way.

The isotropic twin is noise of the same norm in a random direction, in the place of the part's error. If KL(part) /
KL(twin) is above 1, the error points where the model is sensitive: another method with as many bits could do better. At
1 it is mere size. Below 1 the method has turned the error to where it does not hurt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from app.contracts.report import Mean
from app.kinds.attribute.report import Additivity, Evidence, Explained
from app.kinds.attribute.request import AttributeRequest
from workers.diagnosis.attribute.changes import Inputs, evidence
from workers.diagnosis.attribute.mixing import CONTROL, Mode
from workers.diagnosis.attribute.search import Measured, Search
from workers.diagnosis.attribute.sites import Site
from workers.diagnosis.attribute.swapping import Swapper
from workers.distributions.intervals import FEWEST_CLUSTERS
from workers.measuring.means import GAINED, POSITIVE, mean_of, ratio
from workers.process.handler import JobContext
from workers.surgery.blockwise.skeleton import Read


@dataclass
class Look:
    """What was measured of one part."""

    control: float
    ratio: Mean | None
    restored: Mean | None
    evidence: Evidence | None


@dataclass
class Examination:
    """Examines the first parts of a finished search. `full`: KL of the whole candidate on the subset."""

    swapper: Swapper
    search: Search
    reads: tuple[Read, Read]
    request: AttributeRequest
    context: JobContext
    full: NDArray[np.float32]
    first: list[Site] = field(default_factory=list)
    looks: dict[str, Look] = field(default_factory=dict)
    explained: Explained | None = None
    additivity: Additivity | None = None
    cost: float = 0.0
    _done: int = 0

    def run(self) -> None:
        """Measures all of it."""
        self.first = disjoint(self.search.ranked, self.request.top)
        inputs = Inputs(self.swapper.reference)
        for site in self.first:
            self.looks[site.name] = self._look(site, inputs)
        self.explained = self._explained()
        self.additivity = self._additivity()

    def _look(self, site: Site, inputs: Inputs) -> Look:
        self._step()
        swapper, seed = self.swapper, self.request.seed
        held = control(swapper, site)
        self._pay([site], BATCHES)
        found = None
        if possible(swapper, site):
            found = twin_ratio(swapper, site, twins=self.request.twins, seed=seed)
            self._pay([site], batches_of(swapper), self.request.twins)
        restored = self._restored([site]) if "restore" in self.request.directions else None
        why = evidence(site, self.reads, inputs, swapper.candidate.runner.skeleton.info)
        return Look(held, found, restored, why)

    def _restored(self, sites: list[Site]) -> Mean:
        """Nats that the candidate gains where these parts are the reference's again."""
        kl = self.swapper.kl(sites, into="candidate")
        self._pay(sites, len(self.swapper.batches))
        return mean_of(self._gain(kl), self.swapper.subset.where, seed=self.request.seed)

    def _gain(self, kl: NDArray[np.float32]) -> NDArray[np.float64]:
        return self.full.astype(np.float64) - kl.astype(np.float64)

    def _explained(self) -> Explained | None:
        if not self.first:
            return None
        self._step()
        swapper, where, seed = self.swapper, self.swapper.subset.where, self.request.seed
        kl = swapper.kl(self.first)
        self._pay(self.first, len(swapper.batches))
        share = ratio(kl, self.full, where, seed=seed)
        restored = restored_share = None
        if "restore" in self.request.directions:
            restored = self._restored(self.first)
            gain = self._gain(swapper.kl(self.first, into="candidate"))
            restored_share = ratio(gain, self.full, where, seed=seed, support=GAINED)
        return Explained(
            sites=tuple(site.name for site in self.first),
            nats=mean_of(kl.astype(np.float64), where, seed=seed, support=POSITIVE),
            share=share or Mean(mean=None, ci=None),
            restored=restored,
            restored_share=restored_share,
        )

    def _additivity(self) -> Additivity | None:
        """The whole candidate over the sum of all that differs; None if not all of it was measured."""
        parts = self.search.everything()
        if not parts:
            return None
        where, seed = self.swapper.subset.where, self.request.seed
        total = np.zeros(len(self.full))
        for part in parts:
            total += part.kl
        return Additivity(
            over=tuple(one.site.name for one in parts),
            total=mean_of(total, where, seed=seed, support=POSITIVE),
            ratio=ratio(self.full, total, where, seed=seed),
        )

    def _pay(self, sites: list[Site], batches: int, times: int = 1) -> None:
        share = self.swapper.positions(batches) / max(1, len(self.full))
        self.cost += times * share * self.swapper.cost(sites)

    def _step(self) -> None:
        """Another step: each first part, then all of them together."""
        self.context.check_cancelled()
        self.context.progress("look into parts", self._done, len(self.first) + 1)
        self._done += 1


def disjoint(ranked: Sequence[Measured], top: int, *, most_of: float = 0.6) -> list[Site]:
    """The first parts that share nothing, in their order. A layer gives way to a single part of it that says more. That
    part was measured on as much of the text, and costs `most_of` of the layer's nats there."""

    def gives_way(layer: Measured) -> bool:
        size = len(layer.kl)
        return layer.site.whole and any(
            other.site.layer == layer.site.layer
            and not other.site.whole
            and len(other.kl) >= size
            and other.nats_on(size) >= most_of * layer.nats
            for other in ranked
        )

    chosen: list[Site] = []
    for one in ranked:
        if len(chosen) == top:
            break
        # what costs nothing may stand before what does, and was measured on less of the text
        if one.nats > 0 and not gives_way(one) and not any(one.site.within(other) for other in chosen):
            chosen.append(one.site)
    return chosen


def batches_of(swapper: Swapper) -> int:
    """Half of the subset's batches, or as many more as hold the windows that an interval needs: what twins are run
    on."""
    ends = [end for _, end in swapper.batches]
    enough = next((count for count, end in enumerate(ends, 1) if end >= FEWEST_CLUSTERS), len(ends))
    return max(enough, len(ends) // 2)


def possible(swapper: Swapper, site: Site) -> bool:
    """Whether the part has the same shapes in both models: the error has a norm."""
    ours, theirs = (model.runner.skeleton.info for model in (swapper.reference, swapper.candidate))
    return all(
        other in theirs.tensors and ours.tensors[name].shape == theirs.tensors[other].shape
        for name, other in zip(site.tensors, site.tensors_in(theirs), strict=True)
    )


def twin_ratio(swapper: Swapper, site: Site, *, twins: int, seed: int) -> Mean | None:
    """KL of the part over the mean KL of its twins, paired by position; None if the twins cost nothing."""
    batches = batches_of(swapper)
    part = swapper.kl([site], batches=batches)
    noise = [swapper.kl([site], mode=Mode("twin", seed + number), batches=batches) for number in range(twins)]
    where = swapper.subset.where.select(np.arange(len(part)))
    return ratio(part, np.mean(noise, axis=0), where, seed=seed)


# On so many batches: one shows all that can go wrong.
BATCHES = 1


def control(swapper: Swapper, site: Site) -> float:
    """Largest KL of any position if the part is swapped by itself, nats; infinite if one is not finite."""
    kl = swapper.kl([site], mode=CONTROL, batches=BATCHES)
    return float(np.max(np.where(np.isfinite(kl), kl, np.inf), initial=0.0))
