"""Finds the parts that cost most, within a budget of forward passes: whole layers first, then what is in them.

Layers (and what stands outside them) come first because they are few and together are all that differs. Their nats say
in which order the finer parts are worth a try; where the budget does not reach for all of these, those of the mildest
layers are left out.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from app.contracts.attribute_report import Rung
from app.contracts.requests.attribute import SiteLevel
from workers.diagnosis.attribute.halving import Result, halve
from workers.diagnosis.attribute.sites import Site
from workers.diagnosis.attribute.swapping import Swapper
from workers.diagnosis.context import JobContext

Stage = Literal["layers", "parts"]
# Of the budget, for whole layers where there are finer parts to come.
FOR_LAYERS = 0.6


@dataclass(frozen=True)
class Measured:
    """One part's KL at the scored positions of the first `batches`, and the last step of the search that it was in."""

    site: Site
    kl: NDArray[np.float32]
    batches: int
    rung: int

    @property
    def nats(self) -> float:
        """Mean over the finite positions; not a number where there is none."""
        finite = self.kl[np.isfinite(self.kl)]
        return float(finite.mean()) if finite.size else float("nan")


@dataclass
class Search:
    """One search. `changed`: the parts that differ, in the model's order."""

    swapper: Swapper
    changed: Sequence[Site]
    levels: Collection[SiteLevel]
    budget: float
    top: int
    context: JobContext
    found: dict[str, Measured] = field(default_factory=dict)
    rungs: list[Rung] = field(default_factory=list)
    _done: int = 0

    @property
    def spent(self) -> float:
        """Forward passes so far."""
        return sum(rung.cost for rung in self.rungs)

    @property
    def ranked(self) -> list[Measured]:
        """What was measured, the worst first."""
        known = [one for one in self.found.values() if np.isfinite(one.nats)]
        return sorted(known, key=lambda one: (-one.nats, one.site.name))

    def run(self) -> None:
        """Measures; everything is in `found` then."""
        outer = [site for site in self.changed if site.layer is None or (site.whole and "layer" in self.levels)]
        finer = [
            site for site in self.changed if site.layer is not None and site.kind in self.levels and not site.whole
        ]
        if outer:
            self._stage("layers", outer, self.budget * (FOR_LAYERS if finer else 1.0), keep=len(outer))
        left = self.budget - self.spent
        if finer and left > 0:
            order = {site.name: index for index, site in enumerate(finer)}
            finer.sort(key=lambda site: (-self._nats_of_layer(site), order[site.name]))
            self._stage("parts", finer, left, keep=self.top)

    def everything(self) -> list[Measured]:
        """Layers and what stands outside, where all of them were measured on the whole subset: together they are all
        that differs. Empty where that is not so."""
        outer = [site for site in self.changed if site.layer is None or site.whole]
        known = [self.found.get(site.name) for site in outer]
        whole = len(self.swapper.batches)
        complete = [one for one in known if one is not None and one.batches == whole]
        return complete if "layer" in self.levels and len(complete) == len(outer) else []

    def _nats_of_layer(self, site: Site) -> float:
        layer = self.found.get(f"layers.{site.layer}")
        return 0.0 if layer is None or not np.isfinite(layer.nats) else layer.nats

    def _stage(self, stage: Stage, arms: Sequence[Site], budget: float, *, keep: int) -> None:
        swapper = self.swapper
        batches = len(swapper.batches)
        first = len(self.rungs)

        def measure(site: Site, upto: int) -> float:
            self.context.check_cancelled()
            self._done += 1
            self.context.progress(f"swap {stage}", self._done, 0)
            self.context.observe("attribution_swaps", 1, stage=stage)
            kl = swapper.kl([site], batches=upto)
            self.found[site.name] = Measured(site, kl, upto, first)
            nats = self.found[site.name].nats
            # what is not finite is as bad as can be
            return nats if np.isfinite(nats) else float("inf")

        costs = [swapper.cost([site]) for site in arms]
        result: Result[Site] = halve(arms, costs, measure, batches=batches, keep=min(keep, len(arms)), budget=budget)
        for index, step in result.step.items():
            name = arms[index].name
            self.found[name] = Measured(arms[index], self.found[name].kl, result.batches[index], first + step)
        self.rungs += [
            Rung(stage=stage, sites=s.sites, tokens=swapper.positions(s.batches), kept=s.kept, cost=round(s.cost, 3))
            for s in result.steps
        ]
