"""Finds the parts that cost most, within a budget of forward passes: whole layers first, then what is in them.

Layers (and what is outside them) come first because they are few and together are all that differs. Their nats give the
order in which finer parts are tried. A small budget leaves out the parts of layers with fewer nats. Nothing is known of
layers before they are measured. If the budget does not reach for all of them, those that are tried are spread over the
model. The others are reported, not taken for mild."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from app.kinds.attribute.request import SiteLevel
from workers.diagnosis.attribute.halving import Plan, Result, halve
from workers.diagnosis.attribute.sites import Site
from workers.diagnosis.attribute.swapping import Swapper
from workers.process.handler import JobContext

Stage = Literal["layers", "parts"]
# Of the budget, for whole layers where there are finer parts to come: more only where a first look at all takes it.
FOR_LAYERS = 0.6
# Of the layers, those that are measured on all of the text, where more are not afforded.
KEPT_LAYERS = 0.25


@dataclass(frozen=True)
class Measured:
    """One part's KL at the scored positions of the first `batches`."""

    site: Site
    kl: NDArray[np.float32]
    batches: int

    @property
    def nats(self) -> float:
        """Mean over the finite positions; not a number where there is none."""
        return self.nats_on(len(self.kl))

    def nats_on(self, positions: int) -> float:
        """The same of the first so many positions."""
        first = self.kl[:positions]
        finite = first[np.isfinite(first)]
        return float(finite.mean()) if finite.size else float("nan")

    @property
    def nowhere_finite(self) -> bool:
        """Whether no position is finite: as bad as can be, and without a number."""
        return not np.isfinite(self.kl).any()


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
    # what the budget did not reach for, in the model's order
    left_out: list[Site] = field(default_factory=list)
    # forward passes so far
    spent: float = 0.0
    # whether parts of every layer were asked for
    all_layers: bool = True

    @property
    def untried(self) -> list[Site]:
        """Layers, and parts outside them, that were not looked at: nothing says how much damage is theirs."""
        return [site for site in self.left_out if site.layer is None or site.whole]

    @property
    def ranked(self) -> list[Measured]:
        """What was measured and has a number: what was measured on more of the text first, and of as much the worst.
        What was dropped was milder, on the very same tokens, than what went on: nats of other tokens do not undo that.
        """
        known = [one for one in self.found.values() if not one.nowhere_finite]
        return sorted(known, key=lambda one: (-one.batches, -one.nats, one.site.name))

    @property
    def nowhere_finite(self) -> list[Measured]:
        """What was measured, was finite at no position and is worse than all that has a number: what is in layers
        first, which says more, in the model's order."""
        order = {site.name: index for index, site in enumerate(self.changed)}
        known = [one for one in self.found.values() if one.nowhere_finite]
        return sorted(known, key=lambda one: (one.site.whole, order[one.site.name]))

    def run(self) -> None:
        """Measures; everything is in `found` then."""
        outer = [site for site in self.changed if site.layer is None or (site.whole and "layer" in self.levels)]
        finer = [
            site for site in self.changed if site.layer is not None and site.kind in self.levels and not site.whole
        ]
        if outer:
            least = sum(self.swapper.cost([site]) for site in outer) * self._shares[1]
            share = max(self.budget * FOR_LAYERS, min(self.budget, least)) if finer else self.budget
            self._stage("layers", outer, share, keep=max(self.top, ceil(KEPT_LAYERS * len(outer))), evenly=True)
        if finer:
            damage = self._damage_by_layer(sorted({site.layer for site in finer if site.layer is not None}))
            # stable: of equals the model's order
            finer.sort(key=lambda site: damage.get(site.layer, (0, 0.0)), reverse=True)
            self._stage("parts", finer, self.budget - self.spent, keep=self.top, evenly=not damage)
        order = {site.name: index for index, site in enumerate(self.changed)}
        self.left_out.sort(key=lambda site: order[site.name])

    def everything(self) -> list[Measured]:
        """Layers and what is outside, where all of them were asked for and measured on the whole subset: together
        they are all that differs. Empty if that is not so."""
        outer = [site for site in self.changed if site.layer is None or site.whole]
        known = [self.found.get(site.name) for site in outer]
        whole = len(self.swapper.batches)
        complete = [one for one in known if one is not None and one.batches == whole]
        asked = self.all_layers and "layer" in self.levels
        return complete if asked and len(complete) == len(outer) else []

    @property
    def _shares(self) -> list[float]:
        """What the first so many batches are of the text."""
        ends = [end for _, end in self.swapper.batches]
        return [0.0, *(end / ends[-1] for end in ends)]

    def _damage_by_layer(self, layers: Sequence[int]) -> dict[int | None, tuple[int, float]]:
        """(batches, nats) of these layers, which are in order as `ranked` is; of one that was not tried, the worse of
        its nearest neighbours that were. Empty if none was."""
        nats = {
            one.site.layer: (one.batches, one.nats if np.isfinite(one.nats) else float("inf"))
            for one in self.found.values()
            if one.site.whole and one.site.layer is not None
        }
        if not nats:
            return {}
        damage: dict[int | None, tuple[int, float]] = {}
        for layer in layers:
            below = max((known for known in nats if known <= layer), default=None)
            above = min((known for known in nats if known >= layer), default=None)
            damage[layer] = max(nats[near] for near in (below, above) if near is not None)
        return damage

    def _stage(self, stage: Stage, arms: Sequence[Site], budget: float, *, keep: int, evenly: bool) -> None:
        swapper = self.swapper
        batches, shares = len(swapper.batches), self._shares
        costs = [swapper.cost([site]) for site in arms]
        if (min(costs) if evenly else costs[0]) * shares[1] > budget:
            self.left_out += arms
            return
        kept = min(keep, len(arms))
        done, total = itertools.count(), 0

        def planned(plan: Plan) -> None:
            nonlocal total
            total = plan.measurements

        def measure(site: Site, upto: int) -> float:
            self.context.check_cancelled()
            self.context.progress(f"swap {stage}", next(done), total)
            self.context.observe("attribution_swaps", 1, stage=stage)
            kl = swapper.kl([site], batches=upto)
            self.found[site.name] = Measured(site, kl, upto)
            nats = self.found[site.name].nats
            # what is not finite is as bad as can be
            return nats if np.isfinite(nats) else float("inf")

        result: Result[Site] = halve(
            arms,
            costs,
            measure,
            batches=batches,
            keep=kept,
            budget=budget,
            shares=shares,
            evenly=evenly,
            tell=planned,
        )
        self.spent += result.cost
        self.left_out += result.left_out
