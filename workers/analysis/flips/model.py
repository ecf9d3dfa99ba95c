"""How the flip rate rises with KL: a hierarchical regression, and its prediction intervals.

A run i of task t with n items has k flips, k ~ Binomial(n, π), and

    ln(−ln(1 − π)) = α + β ln KL + u_t + e_i,    u_t ~ N(0, σ²),  e_i ~ N(0, τ²).

The complementary log-log link fits because small damage flips items one by one (π ≈ e^η, so π is proportional to KL^β)
and large damage fills up. If answers flip because a margin between two of them is crossed, the shift is of the order of
√KL. So β is about ½: that is the prior's centre, and the prior is wide enough to be overruled. The term u is what a
task of its own does: its items are near the border or far from it. The term e is what the kind of damage does. Without
both, intervals would be those of coin tosses and far too narrow.

The scales σ and τ are averaged over, on a grid, with half-normal priors. Given them, α, β and u are Gaussian about the
mode. The working responses and weights are those of the binomial likelihood at the fitted values (Breslow and Clayton,
JASA 88 (1993) 9–25). What comes of it is a mixture of Gaussians on the scale of the link. A prediction is for a run of
so many items and holds their coin tosses, too. Coverage is simulated in tests/bench/flips.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from workers.analysis.flips.runs import Run

Array = NDArray[np.float64]

# Priors: α at KL = 0.1 nats (a flip rate of a tenth, within a factor of e² or so), β, and the scales of σ and τ.
CENTRE: Final = math.log(0.1)
INTERCEPT_MEAN, INTERCEPT_SD = math.log(0.1), 1.5
SLOPE_MEAN, SLOPE_SD = 0.5, 0.25
TASK_SCALE, RUN_SCALE = 0.6, 0.4
_GRID: Final = 8
_ROUNDS: Final = 5
_DRAWS: Final = 20_000


@dataclass(frozen=True)
class Component:
    """One point of the grid: weight, scales, and the Gaussian of α, β and the tasks' effects given them."""

    weight: float
    task_sd: float
    run_sd: float
    mean: Array
    covariance: Array


@dataclass(frozen=True)
class FlipModel:
    """The fitted mixture. `tasks` are the identities (`Run.identity`) in the order of their effects."""

    components: tuple[Component, ...]
    tasks: tuple[str, ...]
    runs: int

    def predict(
        self, kl: float, items: int, *, task: str | None = None, level: float = 0.95, seed: int = 0
    ) -> tuple[float, float, float]:
        """(low, median, high) of the flip rate of a new run at `kl` nats over `items` items.

        `task` is an identity; a task that the model has not seen is a new one, drawn from all tasks' spread.
        """
        rates = self.draws(kl, items, task=task, seed=seed)
        low, median, high = np.quantile(rates, [(1 - level) / 2, 0.5, (1 + level) / 2])
        return float(low), float(median), float(high)

    def draws(self, kl: float, items: int, *, task: str | None = None, seed: int = 0) -> Array:
        """Draws of that flip rate, shape (n), whose quantiles `predict` gives."""
        rng = np.random.default_rng(seed)
        eta = self._link(kl, task, rng)
        drawn: Array = rng.binomial(items, 1 - np.exp(-np.exp(np.clip(eta, -30, 4)))) / items
        return drawn

    def _link(self, kl: float, task: str | None, rng: np.random.Generator) -> Array:
        """Draws of a new run's η."""
        x = math.log(kl) - CENTRE
        row = np.zeros(2 + len(self.tasks))
        row[:2] = 1.0, x
        known = task in self.tasks
        if known:
            row[2 + self.tasks.index(str(task))] = 1.0
        means, sds = [], []
        for part in self.components:
            variance = float(row @ part.covariance @ row) + part.run_sd**2
            variance += 0.0 if known else part.task_sd**2
            means.append(float(row @ part.mean))
            sds.append(math.sqrt(variance))
        weights = np.asarray([part.weight for part in self.components])
        which = rng.choice(len(weights), size=_DRAWS, p=weights / weights.sum())
        drawn: Array = np.asarray(means)[which] + np.asarray(sds)[which] * rng.standard_normal(_DRAWS)
        return drawn


def fit(runs: Sequence[Run]) -> FlipModel:
    """The model of these runs. Raises ValueError if there is none."""
    if not runs:
        raise ValueError("there is no run to learn from")
    tasks = tuple(sorted({run.identity for run in runs}))
    design = np.zeros((len(runs), 2 + len(tasks)))
    for row, run in enumerate(runs):
        design[row, 0] = 1.0
        design[row, 1] = math.log(run.kl) - CENTRE
        design[row, 2 + tasks.index(run.identity)] = 1.0
    items = np.asarray([run.items for run in runs], dtype=np.float64)
    rates = np.asarray([run.rate for run in runs])
    scales = [(task_sd, run_sd) for task_sd in _half_normal_grid(TASK_SCALE) for run_sd in _half_normal_grid(RUN_SCALE)]
    logs, means, covariances = _given_scales(design, items, rates, np.asarray(scales))
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    kept = tuple(
        Component(float(weight), task_sd, run_sd, mean, covariance)
        for weight, (task_sd, run_sd), mean, covariance in zip(weights, scales, means, covariances, strict=True)
        if weight > 1e-6
    )
    return FlipModel(kept, tasks, len(runs))


@lru_cache
def _half_normal_grid(scale: float) -> tuple[float, ...]:
    """Values of equal prior weight: the middles of as many slices of a half-normal."""
    from scipy import stats

    levels = (np.arange(_GRID) + 0.5) / _GRID
    return tuple(float(value) for value in stats.halfnorm.ppf(levels, scale=scale))


def _given_scales(design: Array, items: Array, rates: Array, scales: Array) -> tuple[Array, Array, Array]:
    """(log evidence, mean, covariance) of α, β, u for each row (σ, τ) of `scales`: shapes (g), (g, p), (g, p, p) for g
    rows and p columns of `design`.

    The working response z = η + (k/n − π)/π' has variance π(1 − π)/(n π'²) + τ². Its η is each run's own posterior
    mean, with its e_i included. Both are found by turns.
    """
    prior_mean = np.zeros(design.shape[1])
    prior_mean[:2] = INTERCEPT_MEAN, SLOPE_MEAN
    prior_variance = np.repeat(scales[:, :1] ** 2, design.shape[1], axis=1)
    prior_variance[:, :2] = INTERCEPT_SD**2, SLOPE_SD**2
    run_variance = scales[:, 1:] ** 2
    # As if half an item more had flipped and half had not: a start that is finite.
    start = np.clip((rates * items + 0.5) / (items + 1), 1e-6, 1 - 1e-6)
    eta = np.tile(np.log(-np.log1p(-start)), (len(scales), 1))
    for _ in range(_ROUNDS):
        eta = np.clip(eta, -12.0, 2.0)
        hazard = np.exp(eta)
        share = -np.expm1(-hazard)
        slope = hazard * np.exp(-hazard)
        noise = share * (1 - share) / (items * slope**2)
        z = eta + (rates - share) / slope
        variance = noise + run_variance
        precision = np.matmul(design.T / variance[:, None, :], design)
        diagonal = np.einsum("gpp->gp", precision)
        diagonal += 1 / prior_variance
        covariance = np.linalg.inv(precision)
        moved = np.einsum("gpq,gq->gp", covariance, ((z - design @ prior_mean) / variance) @ design)
        fitted = (prior_mean + moved) @ design.T
        eta = fitted + run_variance / variance * (z - fitted)
    # ln N(z; X m, V + X P Xᵀ) by what the fit leaves and the determinant lemma: no matrix of runs by runs.
    square = np.sum((z - fitted) ** 2 / variance, axis=1) + np.sum(moved**2 / prior_variance, axis=1)
    determinant = np.log(variance).sum(axis=1) + np.log(prior_variance).sum(axis=1) + np.linalg.slogdet(precision)[1]
    # The working likelihood is N(z; η, noise): its height at the mode against the binomial's own.
    log_evidence = -0.5 * (square + determinant) + _binomial_correction(items, rates, eta, z, noise)
    return log_evidence, prior_mean + moved, covariance


def _binomial_correction(items: Array, rates: Array, eta: Array, z: Array, noise: Array) -> Array:
    """Σ ln Binomial(k | η) − ln N(z; η, noise) at the runs' own η, the last axis: makes evidences of different scales
    comparable."""
    share = np.clip(-np.expm1(-np.exp(np.clip(eta, -30, 4))), 1e-12, 1 - 1e-12)
    binomial = items * (rates * np.log(share) + (1 - rates) * np.log1p(-share))
    normal = -0.5 * (z - eta) ** 2 / noise - 0.5 * np.log(noise)
    return np.asarray(np.sum(binomial - normal, axis=-1))
