"""Fit of the low-rank affine map: ridge regression in the KL's own metric, then natural-gradient steps on KL itself.

In the coordinates of `metric.py` the map is one matrix N [D, D] and a shift n:

    h' = h + (x N + n) F^(−1/2),   x = (h − μ) Σ^(−1/2)

Regression: to second order KL is ½ |(h_ref − h') F^(1/2)|², so N is the ridge regression of y = (h_ref − h) F^(1/2) on
x. In whitened coordinates one ridge is a pull of every direction towards the identity by the same share; the share that
does best on the stop set is taken. Models of different widths have no such difference and start at the identity.

Refinement: steps with momentum against the exact mean gradient of KL over all fit rows. Small batches diverge or fit
their noise: single rows have gradients a hundred times the median. Then a step counts if KL on the stop set falls. Else
its rate is halved and its momentum is dropped. Three halvings in a row, or `epochs` steps, end the fit. Singular values
of N beyond the rank are cut, least effect first.

Names: T rows, C rows of a chunk, D hidden size, R rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch

from workers.calibration.fitting.data import FitData
from workers.calibration.fitting.metric import Metric, measure
from workers.calibration.fitting.objective import CheckCancelled, Objective
from workers.calibration.fitting.record import Progress
from workers.calibration.fitting.spec import Settings
from workers.calibration.reductions import Reductions
from workers.calibration.reductions import State as Sums
from workers.calibrators.base import Base
from workers.calibrators.lowrank import LowRank

# Ridges that are tried, as pulls towards the identity: 1 halves what a direction would be without it.
RIDGES = (4.0, 2.0, 1.0, 0.5, 0.25)
_HALVINGS = 3
# Numbers of hidden states that the regressions take to float32 at a time: 128 MiB.
_NUMBERS = 1 << 25


@dataclass(frozen=True)
class State:
    """N and n."""

    map_DD: torch.Tensor
    shift_D: torch.Tensor

    def plus(self, other: State, times: float) -> State:
        """This and so many times the other."""
        return State(self.map_DD + times * other.map_DD, self.shift_D + times * other.shift_D)

    def cut(self, metric: Metric, rank: int) -> LowRank:
        """The map of at most `rank` that is closest in effect."""
        left_DR, size_R, right_RD = torch.linalg.svd(self.map_DD, full_matrices=False)
        root_R = size_R[:rank].sqrt()
        down_DR = metric.whiten_DD @ (left_DR[:, :rank] * root_R)
        up_RD = (right_RD[:rank] * root_R[:, None]) @ metric.unweigh_DD
        shift_D = self.shift_D @ metric.unweigh_DD - (metric.mean_D @ down_DR) @ up_RD
        return LowRank(down_DR.contiguous(), up_RD.contiguous(), shift_D)


@dataclass(frozen=True)
class Watch:
    """Looks at the stop set: `look(make, round)` gives the mean KL there of the calibrator that `make` gives, and
    remembers it. `reductions` are the fit's own."""

    look: Callable[[Callable[[], Base], int], float]
    raw_kl: float
    progress: Progress
    check_cancelled: CheckCancelled
    reductions: Reductions


def fit_lowrank(
    objective: Objective, data: FitData, settings: Settings, *, seed: int, watch: Watch
) -> tuple[LowRank, bool]:
    """The map, the identity where nothing did better on the stop set; and whether refinement was stopped early."""
    watch.check_cancelled()
    total = len(RIDGES) + settings.epochs
    watch.progress("lowrank", 0, total)
    reductions = watch.reductions.at("lowrank")
    metric = measure(
        data,
        objective,
        ridge=settings.ridge,
        damping=settings.damping,
        seed=seed,
        check_cancelled=watch.check_cancelled,
        reductions=reductions,
    )
    width = data.candidate_TD.shape[1]
    zeros = partial(torch.zeros, dtype=metric.mean_D.dtype, device=objective.device)
    best, best_kl = State(zeros(width, width), zeros(width)), watch.raw_kl
    for done, state in enumerate(regressions(objective, data, metric, watch.check_cancelled)):
        watch.check_cancelled()
        found = watch.look(partial(state.cut, metric, settings.rank), 0)
        watch.progress("lowrank", done + 1, total)
        if found >= best_kl:
            break
        best, best_kl = state, found
    rate, halved, taken = settings.rate, 0, 0
    slope: State | None = None
    velocity: State | None = None
    while taken < settings.epochs and halved < _HALVINGS:
        slope = slope or _slope(objective, data, metric, best, watch.check_cancelled, reductions, taken)
        push = slope if velocity is None else slope.plus(velocity, settings.momentum)
        state = best.plus(push, -rate)
        found = watch.look(partial(state.cut, metric, settings.rank), taken + 1)
        if found < best_kl:
            best, best_kl, slope, velocity, halved = state, found, None, push, 0
            taken += 1
            watch.progress("lowrank", len(RIDGES) + taken, total)
        else:  # without what it gathered before it is smaller
            rate, velocity, halved = rate / 2, None, halved + 1
    watch.progress("lowrank", total, total)
    return best.cut(metric, settings.rank), taken < settings.epochs


def regressions(
    objective: Objective, data: FitData, metric: Metric, check_cancelled: CheckCancelled
) -> Iterator[State]:
    """The map of each of `RIDGES`; none where the models differ in width."""
    width = data.candidate_TD.shape[1]
    if data.reference_TD.shape[1] != width:
        return
    dtype, rows = metric.mean_D.dtype, max(1, _NUMBERS // width)

    def wanted(some: FitData) -> torch.Tensor:
        return (some.reference_TD.to(dtype) - some.candidate_TD.to(dtype)) @ metric.weigh_DD

    def products(some: FitData) -> torch.Tensor:
        x_CD = metric.whitened(some.candidate_TD)
        return torch.stack([x_CD.T @ x_CD, x_CD.T @ (wanted(some) - shift_D)])

    shift_D = objective.average(data, lambda some: wanted(some).sum(dim=0), rows, check_cancelled)
    gram_DD, cross_DD = objective.average(data, products, rows, check_cancelled)
    eye_DD = torch.eye(width, dtype=dtype, device=objective.device)
    for ridge in RIDGES:
        yield State(torch.linalg.solve(gram_DD + ridge * eye_DD, cross_DD), shift_D)


def _slope(
    objective: Objective,
    data: FitData,
    metric: Metric,
    state: State,
    check_cancelled: CheckCancelled,
    reductions: Reductions,
    step: int,
) -> State:
    """Mean gradient of KL in N and n."""

    def add(sums: Sums, chunk: FitData) -> Sums:
        x_CD = metric.whitened(chunk.candidate_TD)
        hidden_CD = chunk.candidate_TD.to(x_CD.dtype) + (x_CD @ state.map_DD + state.shift_D) @ metric.unweigh_DD
        slope_CD = objective.gradient(chunk.reference_TD, hidden_CD) @ metric.unweigh_DD
        return {
            "map_DD": sums["map_DD"] + x_CD.T @ slope_CD,
            "shift_D": sums["shift_D"] + slope_CD.sum(dim=0),
        }

    start = {"map_DD": torch.zeros_like(state.map_DD), "shift_D": torch.zeros_like(state.shift_D)}
    sums = reductions.of(f"slope-{step}", start, objective.chunks(data, check_cancelled), add)
    return State(sums["map_DD"] / len(data), sums["shift_D"] / len(data))
