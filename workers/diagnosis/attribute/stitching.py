"""Layers of one model run inside another of another width, through an affine map between their hidden states.

*Model stitching* joins a part of one frozen network to a part of another by an affine layer between them (Lenc &
Vedaldi, CVPR 2015, 1411.5908; Bansal, Nakkiran & Barak, 2106.07682), fitted here by least squares (`affine`). What is
ours is that a span in the middle is stitched in at both of its ends, and that nothing is charged to it that the map
loses. With h the reference's states at the border where a gap begins, A the map there to the candidate's width, B the
one back, and f the candidate's layers of the gap,

    stitched = h + B f(A h) − B A h        and then the reference's layers behind the gap, and its head.

Only what the layers add to the residual stream crosses back. What B A h has lost of h cancels in the states, before
anything is measured: layers that add nothing cost exactly 0 nats, where the difference of two KLs (of B f(A h) and of
B A h) would have their cross terms for an error, and could be negative. Where the widths are one, and the states that
enter the gap are the same in both models, A and B are the identity and this is the reference with the layers put in.

Both maps are of the border where the gap *begins*. A map back of the border where it ends would be fitted on what the
gap's layers made, and would undo what they do wrong as far as an affine map can. In return, what they write into
directions that no state at the border has is not seen.

The *control* is KL(a model ‖ that model with B A h in the place of h), no layer swapped: what the map loses there and
back. Where layers of the model that goes on are replaced, what the map does not carry of what layers *add* is charged
as if they were left out, however well it carries h. There the control is the larger of two: with g these layers, the
other is KL(the reference ‖ the reference with h + B A g(h) − B A h behind them), what the map loses of what they add.
It is never negative, told beside and not subtracted. Where it is no less than the stitched nats, these prove nothing:
the layers have run on states that are not the reference's, or what they are charged with is the map's.

Where an earlier layer of the candidate is damaged, maps of a later border hold what it has made, and layers that are
nobody's damage then run on states that are not what they are given anywhere else: they seem to cost something. An
earlier pair of borders may have the better map (`swapped_through`): where it loses less at the gap, it is taken.

No border comes before the embeddings, and where these are damaged all maps hold it: A carries a part of the damage in,
on which the gap's layers then run, and B takes it away again, so that neither control shows it. What went wrong before
the border of the maps has a control of its own, `before`: KL(the reference ‖ the reference with B ĉ in the place of h
there), ĉ being the candidate's own states. It is what B cannot take away, near 0 where the candidate's states are the
reference's in other coordinates. What it can take away (a damage that is itself affine in the states) no control shows.

Maps are fitted crosswise: documents (windows, where they are few) are put into five folds, and the states of a fold are
carried by a map that was fitted on the others. No document is scored by a map that has seen it.

Names: N windows, L tokens of a window, D hidden size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from workers.diagnosis.attribute.affine import fit
from workers.diagnosis.attribute.borders import Borders, Link, run_links
from workers.diagnosis.attribute.matching import Gap, Matching
from workers.diagnosis.attribute.runs import Runs, first
from workers.diagnosis.attribute.sums import Clusters, Sums

FOLDS = 5
# A border of the reference, and the candidate's that stands for it.
Place = tuple[int, int]


@dataclass(frozen=True)
class Stitched:
    """`nats`: KL(reference ‖ the model with layers stitched in); `control`: what the map there and back loses where no
    layer is swapped, the larger of the two ways where there are two; `before`: what went wrong in the candidate before
    the border of the maps, None where it was not asked for. Nats a token, over the same positions."""

    nats: Sums
    control: Sums
    before: Sums | None = None


@dataclass(frozen=True)
class Maps:
    """What the maps of an alignment were fitted on: `tokens` is that of the fold that had fewest. `widths` of reference
    and candidate."""

    widths: tuple[int, int]
    folds: int
    tokens: int


def why_no_maps(clusters: Clusters) -> str:
    """Why no map can be fitted apart from what is scored; empty where one can."""
    if clusters.count > 1:
        return ""
    return "the text is a single window, which leaves none to fit a map between the two widths on"


class Stitching:
    """Stitches by the maps between two models of any widths, which must have two clusters or more (`why_no_maps`).
    States of a few runs of all windows are in memory at once, and the moments of one map."""

    def __init__(self, runs: Runs, *, seed: int) -> None:
        self._runs = runs
        clusters = runs.clusters
        folds = min(FOLDS, clusters.count)
        fold_of_cluster = np.random.default_rng(seed).permutation(clusters.count) % folds
        self._fold_N = torch.from_numpy(fold_of_cluster[clusters.of_window_N])
        windows, length = runs.reference.runner.tokens_NL.shape
        fewest = windows - int(torch.bincount(self._fold_N).max())
        self.maps = Maps((runs.reference.hidden_size, runs.candidate.hidden_size), folds, fewest * length)
        self._before: dict[Place, Sums] = {}

    def swapped(self, gap: Gap) -> Stitched:
        """The reference with this gap alone. Raises what the runs' `check_cancelled` raises."""
        return self._stitched(gap, self._crossed(gap, first(gap)))

    def swapped_through(self, gap: Gap, places: Sequence[Place]) -> tuple[Stitched, Place]:
        """The reference with this gap alone, its layers run through the maps of that one of `places` (borders of
        reference and candidate that stand for each other) whose maps lose least where the gap begins, and what went
        wrong in the candidate before that place; and which place that is. Raises what the runs' `check_cancelled`
        raises."""
        crossed, place = min(
            ((self._crossed(gap, place), place) for place in dict.fromkeys(places)), key=lambda one: one[0].off()
        )
        stitched = self._stitched(gap, crossed)
        if place not in self._before:
            runs = self._runs
            self._before[place] = runs.kl(runs.reference, self._run(runs.ours[place[0] :], crossed.theirs_NLD))
        return replace(stitched, before=self._before[place]), place

    def _stitched(self, gap: Gap, crossed: _Crossed) -> Stitched:
        """What the reference makes of a gap that was crossed, and of what the map leaves."""
        runs, (start, _) = self._runs, first(gap)
        behind = runs.ours[gap.after_reference :]
        entering = [(behind, crossed.swapped_NLD), (runs.ours[start:], crossed.lost_NLD)]
        if crossed.kept_NLD is not None:
            entering.append((behind, crossed.kept_NLD))
        leaving = [self._run(chain, entering_NLD) for chain, entering_NLD in entering]
        stitched, *controls = runs.kls(runs.reference, leaving)
        return Stitched(stitched, _larger(*controls))

    def _crossed(self, gap: Gap, place: Place) -> _Crossed:
        """What there is where a gap begins and ends, through the maps of a place."""
        runs, (start, other), windows = self._runs, first(gap), len(self._fold_N)
        there = _Crossing(self, (runs.reference, place[0]), (runs.candidate, place[1]))
        state_NLD = runs.reference.read(start, 0, windows)
        own = [runs.reference.read(gap.after_reference, 0, windows)] if gap.reference else []
        entering_NLD, *turning = there(state_NLD, *own)
        leaving_NLD = self._run(runs.theirs[other : gap.after_candidate], entering_NLD)
        other_NLD = runs.candidate.read(place[1], 0, windows)
        lost_NLD, made_NLD, theirs_NLD, *returned = there.back()(entering_NLD, leaving_NLD, other_NLD, *turning)
        kept_NLD = state_NLD + (returned[0] - lost_NLD) if returned else None
        swapped_NLD = state_NLD + (made_NLD - lost_NLD)
        return _Crossed(state_NLD, lost_NLD, swapped_NLD, own[0] if own else None, kept_NLD, theirs_NLD)

    def matched(self, matching: Matching) -> Stitched:
        """What both models have: the candidate without its added layers, and with the reference's dropped ones, of
        which there must be one, stitched in. The control goes there and back at the same borders: in the candidate
        without its added layers, against that and not against the reference, of which it may lose less where it loses
        much; and in the reference, with what the dropped layers add. Raises what the runs' `check_cancelled` raises."""
        runs, windows = self._runs, len(self._fold_N)
        plain_NLD = runs.candidate.read(0, 0, windows)
        stitched_NLD, control_NLD = plain_NLD, plain_NLD
        done, own_done = 0, next(first(gap)[0] for gap in matching.gaps if gap.reference)
        own_NLD = runs.reference.read(own_done, 0, windows)
        for gap in matching.gaps:
            start, other = first(gap)
            segment, done = runs.theirs[done:other], gap.after_candidate
            plain_NLD, stitched_NLD, control_NLD = (
                self._run(segment, one_NLD) for one_NLD in (plain_NLD, stitched_NLD, control_NLD)
            )
            if not gap.reference:
                continue
            dropped = runs.ours[start : gap.after_reference]
            own_NLD, own_done = self._run(runs.ours[own_done:start], own_NLD), gap.after_reference
            there = _Crossing(self, (runs.candidate, other), (runs.reference, start))
            entering_NLD, turning_NLD = there(stitched_NLD, control_NLD)
            leaving_NLD, own_leaving_NLD = (self._run(dropped, one_NLD) for one_NLD in (entering_NLD, own_NLD))
            lost_NLD, made_NLD, control_NLD, *turning = there.back()(
                entering_NLD, leaving_NLD, turning_NLD, own_NLD, own_leaving_NLD
            )
            own_lost_NLD, own_made_NLD = there(*turning)
            stitched_NLD = stitched_NLD + (made_NLD - lost_NLD)
            own_NLD = own_NLD + (own_made_NLD - own_lost_NLD)
        plain_NLD, stitched_NLD, control_NLD = (
            self._run(runs.theirs[done:], one_NLD) for one_NLD in (plain_NLD, stitched_NLD, control_NLD)
        )
        control = runs.kl(runs.candidate, control_NLD, base_NLD=plain_NLD)
        own = runs.kl(runs.reference, self._run(runs.ours[own_done:], own_NLD))
        return Stitched(runs.kl(runs.candidate, stitched_NLD), _larger(control, own))

    def carried(
        self, source: tuple[Borders, int], target: tuple[Borders, int], states: tuple[torch.Tensor, ...]
    ) -> list[torch.Tensor]:
        """Each of `states` (N, L, D) at a border of the source, carried to one of the target (N, L, D'): every fold by
        the map of the others."""
        width = target[0].hidden_size
        found = [torch.empty(*one_NLD.shape[:2], width, dtype=target[0].dtype) for one_NLD in states]
        for fold in range(self.maps.folds):
            map_ = fit(self._pairs(source, target, fold), check_cancelled=self._runs.check_cancelled)
            for window in (self._fold_N == fold).nonzero().flatten().tolist():
                for carried_NLD, one_NLD in zip(found, states, strict=True):
                    carried_NLD[window] = map_(one_NLD[window])
        return found

    def _pairs(
        self, source: tuple[Borders, int], target: tuple[Borders, int], fold: int
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Both models' states, a window at a time, of all folds but one."""
        for window in (self._fold_N != fold).nonzero().flatten().tolist():
            x_LD, y_LD = (borders.read(border, window, window + 1)[0] for borders, border in (source, target))
            yield x_LD, y_LD

    def _run(self, chain: list[Link], states_NLD: torch.Tensor) -> torch.Tensor:
        return run_links(chain, states_NLD, check_cancelled=self._runs.check_cancelled)


def _larger(*controls: Sums) -> Sums:
    """Of these the one with the largest mean; one that is no number comes before all."""
    return max(controls, key=lambda one: np.nan_to_num(float(one.values()), nan=np.inf))


@dataclass(frozen=True)
class _Crossed:
    """States (N, L, D) of the reference where a gap begins: its own, what the map there and back leaves of them; and
    where it ends: with the gap, with its own layers, and with what the map leaves of what these add (both None where
    the gap has none of them). And the candidate's at the border of the maps, carried back."""

    state_NLD: torch.Tensor
    lost_NLD: torch.Tensor
    swapped_NLD: torch.Tensor
    own_NLD: torch.Tensor | None
    kept_NLD: torch.Tensor | None
    theirs_NLD: torch.Tensor

    def off(self) -> float:
        """What the map loses, of the states or of what is added to them, whichever is more: mean over tokens of the
        squared error over the squared state that enters the gap. Infinite where it is no number."""
        size_NL = _squares(self.state_NLD).clamp_min(1e-300)
        errors = [self.lost_NLD - self.state_NLD]
        if self.own_NLD is not None and self.kept_NLD is not None:
            errors.append(self.kept_NLD - self.own_NLD)
        lost = [float((_squares(error_NLD) / size_NL).mean()) for error_NLD in errors]
        return max(one if math.isfinite(one) else math.inf for one in lost)


def _squares(states_NLD: torch.Tensor) -> torch.Tensor:
    return states_NLD.to(torch.float64).square().sum(-1)


@dataclass(frozen=True)
class _Crossing:
    """From a border of one model to the one of the other that stands for it."""

    stitching: Stitching
    source: tuple[Borders, int]
    target: tuple[Borders, int]

    def __call__(self, *states: torch.Tensor) -> list[torch.Tensor]:
        return self.stitching.carried(self.source, self.target, states)

    def back(self) -> _Crossing:
        """The other way."""
        return _Crossing(self.stitching, self.target, self.source)
