"""The quiet alarm: is served traffic worse than the deployment's first live requests were?

The drift limit comes from people's text. A model's own text diverges less, so traffic may get much worse below that
limit. This rule learns a lower limit from live requests. The test against it is that of `drift`.

The scale s is the mean of the first requests, which count no further. Let y = min(x, C s)/(C s), with constant mean μ.
Take any predictable guess g, any rate r in (0, 1), and ψ(r) = -ln(1 - r) - r. Then

    exp(r Σ(μ - y) - ψ(r) Σ(y - g)²)

is a supermartingale with value 1 before the first request. By Ville's inequality

    mean(y) + min over the K rates of (τ ln(K/β) + ψ(r) Σ(y - g)²)/(r n),  τ ≥ 1,

is at every n above μ, but with probability β. The least of these limits so far is the one in force: a drift that comes
while the limit is learned cannot raise it. Sources: Fan, Grama and Liu, Exponential inequalities for martingales, EJP
20, 2015; Waudby-Smith and Ramdas, JRSS B 86, 2024, §3.

τ, the dependence, is 1 for independent requests. Where neighbours are alike, it says how many requests are worth one:
the variance of sums over blocks of n requests is n τ times that of a request. It is estimated from blocks of each of
`BLOCKS` (batch means), with two standard errors more; the largest counts. Evidence for a limit and against it is raised
to the power 1/τ. By Jensen's inequality this keeps each bound if requests are independent. For clustered ones it makes
the bound of their sums right to second order, if clusters are not longer than the longest block. Few clusters look like
none, so there is no limit before ten of the longest blocks. `tests/bench/online.csv` has what remains.

A request is tested against the limit that the requests before it gave, on the same clipped values. Learning and testing
use half of α each, over all attempts to learn: attempt k uses the part 1/(k(k+1)) of its half. Another version is
learned again, but its limit only counts if it is lower: a worse version must not teach what is usual.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from app.contracts.base import Contract
from app.contracts.deployment import DriftState
from workers.calibration.online.capital import spent
from workers.calibration.online.drift import LEAST_LEVEL, DriftDecision, DriftDetector, DriftMemory

Array = NDArray[np.float64]

FIRST: Final = 20  # requests that give the scale
CLIP: Final = 8.0  # scales; C above
BLOCKS: Final = (20, 50, 100, 200)  # requests; each divides the longest, at whose ends the limit is computed
FEWEST: Final = 10 * BLOCKS[-1]  # learned requests, from which on there is a limit
MOST: Final = 5000  # learned requests
RATES: Final = (0.9, 0.6, 0.4, 0.27, 0.18)

Sums = Annotated[tuple[float, ...], Field(min_length=len(BLOCKS), max_length=len(BLOCKS))]
NOTHING: Final = (0.0,) * len(BLOCKS)


class QuietMemory(Contract):
    """What is remembered; JSON, a few hundred bytes."""

    attempt: int = Field(default=1, ge=1, description="versions and drift limits so far, this one included")
    first: int = Field(default=0, ge=0, le=FIRST)
    first_total: float = Field(default=0.0, ge=0, description="nats per token, summed over the first requests")
    learned: int = Field(default=0, ge=0)
    total: float = Field(default=0.0, ge=0, description="Σ y")
    spread: float = Field(default=0.0, ge=0, description="Σ (y - g)²")
    begun: Sums = Field(default=NOTHING, description="Σ y of the block of each length that has begun")
    squares: Sums = Field(default=NOTHING, description="Σ (Σ y)² of the blocks that are full")
    rule: DriftDetector | None = Field(default=None, description="of the least limit so far; null: not learned yet")
    drift: DriftMemory = Field(default_factory=lambda: DriftDetector.new(1.0).start())

    @property
    def bound(self) -> float:
        """What a request counts at most, nats per token."""
        return CLIP * max(self.first_total / FIRST, LEAST_LEVEL)


class QuietDetector(Contract):
    """The rule."""

    alpha: float = Field(gt=0, lt=1, description="probability of ever raising a false alarm")

    def update(
        self, memory: QuietMemory, value: float | None, *, learn: bool = True
    ) -> tuple[QuietMemory, DriftDecision | None]:
        """After one request of mean divergence `value`, nats per token; None for what is not finite.

        No decision before there is a limit. Nothing is learned while there is an alarm; without `learn` neither.
        """
        decision = None
        if memory.rule is not None:
            drift, decision = memory.rule.update(memory.drift, value)
            memory = memory.model_copy(update={"drift": drift})
        if learn and memory.drift.relief is None and memory.learned < MOST:
            memory = self._learn(memory, math.inf if value is None else value)
        return memory, decision

    def renewed(self, memory: QuietMemory, *, keep: bool) -> tuple[QuietMemory, DriftDecision | None]:
        """After another version (`keep`: its limit counts if it is lower), or after another drift limit or α.

        An alarm ends, and all is learned again.
        """
        if not memory.first and (keep or memory.rule is None):
            return memory, None
        drift, decision, rule = memory.drift, None, memory.rule
        if rule is not None:
            drift, decision = rule.renewed(drift)
        return QuietMemory(attempt=memory.attempt + 1, drift=drift, rule=rule if keep else None), decision

    def state(self, memory: QuietMemory) -> DriftState:
        """learning, ok or alarm."""
        if memory.rule is None:
            return DriftState.LEARNING
        return DriftState.ALARM if memory.drift.relief is not None else DriftState.OK

    def _learn(self, memory: QuietMemory, value: float) -> QuietMemory:
        if memory.first < FIRST:
            usual = min(value, CLIP * memory.first_total / memory.first) if memory.first_total else value
            usual = usual if math.isfinite(usual) else 0.0
            return memory.model_copy(update={"first": memory.first + 1, "first_total": memory.first_total + usual})
        y, learned = min(value / memory.bound, 1.0), memory.learned + 1
        guess = (1 / CLIP + memory.total) / learned
        begun, squares = [one + y for one in memory.begun], list(memory.squares)
        for place, length in enumerate(BLOCKS):
            if learned % length == 0:
                squares[place] += begun[place] ** 2
                begun[place] = 0.0
        update = {
            "learned": learned,
            "total": memory.total + y,
            "spread": memory.spread + (y - guess) ** 2,
            "begun": tuple(begun),
            "squares": tuple(squares),
        }
        after = memory.model_copy(update=update)
        if learned < FEWEST or learned % BLOCKS[-1]:
            return after
        return after.model_copy(update={"rule": self._least(after)})

    def _least(self, memory: QuietMemory) -> DriftDetector | None:
        """The rule of the lower limit: of the one in force, or of what has been learned."""
        tau = float(dependence(memory.learned, memory.total, memory.spread, memory.squares))
        error = spent(self.alpha / 2, memory.attempt)
        limit = float(upper_limit(memory.learned, memory.total, memory.spread, tau, error)) * memory.bound
        if limit >= memory.bound / 2 or (memory.rule is not None and memory.rule.threshold <= limit):
            return memory.rule
        return DriftDetector(
            threshold=limit,
            alpha=self.alpha / 2,
            bound=memory.bound / limit,
            margin=0.0,  # what was usual is about the limit: with a margin, it might never clear the alarm
            dependence=tau,
            learning=0,
        )


def dependence(count: int, total: ArrayLike, spread: ArrayLike, squares: Iterable[ArrayLike]) -> Array:
    """τ of `count` requests in full blocks, two at least of each of `BLOCKS`: 1 or more.

    Arguments as in `QuietMemory`, of any shape; `squares` has one of each length.
    """
    total, usual = np.asarray(total), np.maximum(np.asarray(spread), 1e-12) / count
    found = np.ones_like(usual)
    for length, square in zip(BLOCKS, squares, strict=True):
        blocks = count // length
        variance = np.maximum(np.asarray(square) - total**2 / blocks, 0.0) / (blocks - 1)
        found = np.maximum(found, variance / (length * usual) * (1 + 2 * math.sqrt(2 / (blocks - 1))))
    return np.asarray(found)


def upper_limit(count: int, total: ArrayLike, spread: ArrayLike, tau: ArrayLike, error: float) -> Array:
    """Of the mean of values between 0 and 1: at every count at once above it, but with probability `error`.

    `spread` is the sum of squares of the values minus their predictable guesses; of any shape, as `total` and `tau`.
    """
    evidence = np.asarray(tau) * math.log(len(RATES) / error)
    slacks = [(evidence - (math.log1p(-rate) + rate) * np.asarray(spread)) / rate for rate in RATES]
    return np.asarray((np.asarray(total) + np.min(slacks, axis=0)) / count)
