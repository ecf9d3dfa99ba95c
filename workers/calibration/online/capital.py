"""Capital of a gambler who bets against a null hypothesis: the evidence of every sequential decision here.

A payoff z is a number that the null calls unfavourable: its mean, given everything before it, is at most 0. Anyone who
stakes the fraction c in (0, 1) of the capital on it multiplies the capital by 1 + c z. While z ≥ -1 the capital stays
positive and, under the null, is a supermartingale that starts at 1. By Ville's inequality it ever reaches 1/α with
probability α at most, however often one looks. Sources: Waudby-Smith and Ramdas, Estimating means of bounded random
variables by betting, JRSS B 86, 2024, §4. Shafer, Testing by betting, JRSS A 184, 2021.

No one knows the best fraction, or when the null stops to hold. Both are answered by splitting the capital, which keeps
the inequality because a sum of supermartingales is one:

- Over K fractions (`FRACTIONS`), in equal parts. The best of them is behind by ln K at most.
- Over starting times, if `restarts` is set. Half is staked at once, the rest is released bit by bit. So a part is
  always fresh, and a long quiet time costs no more than the release is small. After t steps the reserve is r(t) = ½ /
  (1 + ln(1 + t / RELEASE)). A shift after t steps finds 2 (t + RELEASE) (1 + ln(1 + t/RELEASE))² times smaller a part.
  The delay grows by the logarithm of that. The mixture over starting times is Shiryaev's statistic with a spent prior.
  E-detectors that restart with full capital (Shin, Ramdas and Rinaldo 2023) bound the mean time between false alarms,
  not the probability of ever raising one.

Where a payoff can be below -1 no test is possible at all (Bahadur and Savage 1956). Such payoffs are not clipped away:
z < -1 costs (1 - c)^|z|, as if a loss of -1 had come |z| times. The capital is then at most that of payoffs clipped at
-1. Moreover 1 + c z ≤ exp(c z) and (1 - c)^|z| ≤ exp(c z). So its logarithm falls on average if the mean of z, with its
whole tail, is below 0.

Shapes: S streams, K fractions.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from app.contracts.base import Contract

Array = NDArray[np.float64]

FRACTIONS: Final[tuple[float, ...]] = tuple(0.9 * 2.0**-halvings for halvings in range(7))
RELEASE: Final = 50.0  # requests
# Evidence is reported as a float of JSON; what is past this is past every level.
MOST: Final = 1e300

_FRACTIONS_K: Final[Array] = np.asarray(FRACTIONS)


def growth(payoff_S: ArrayLike) -> Array:
    """Factors of the capital, (S, K), of payoffs of any size; 0 for -inf. A payoff of +inf or NaN has none."""
    z_S1 = np.asarray(payoff_S, dtype=np.float64)[..., None]
    if (z_S1 >= -1).all():
        return np.asarray(1 + z_S1 * _FRACTIONS_K)
    return np.where(z_S1 >= -1, 1 + np.maximum(z_S1, -1) * _FRACTIONS_K, (1 - _FRACTIONS_K) ** -np.minimum(z_S1, -1))


def reserve(steps: int) -> float:
    """r(t): the part of the capital that is not yet staked after `steps` steps, with restarts."""
    return 0.5 / (1 + math.log1p(steps / RELEASE))


def opening(streams: int, *, restarts: bool) -> Array:
    """What is staked before the first payoff, (S, K)."""
    return np.full((streams, len(FRACTIONS)), (1 - (reserve(0) if restarts else 0.0)) / len(FRACTIONS))


def advance(
    staked_SK: Array, payoff_S: ArrayLike, steps: int, *, restarts: bool, dependence_S: ArrayLike = 1.0
) -> Array:
    """Stakes after one more payoff in each stream; `steps` payoffs came before.

    So many dependent payoffs are worth one: factors are raised to the power 1/dependence, which by Jensen's inequality
    only makes the capital of independent ones smaller.
    """
    released = reserve(steps - 1) - reserve(steps) if restarts and steps else 0.0
    factors_SK = growth(payoff_S) ** (1 / np.asarray(dependence_S)[..., None])
    return np.asarray((staked_SK + released / len(FRACTIONS)) * factors_SK)


def value(staked_SK: Array, steps: int, *, restarts: bool) -> Array:
    """The whole capital, (S,), after `steps` payoffs: what is compared with 1/α."""
    return np.asarray(staked_SK.sum(axis=-1) + (reserve(max(steps - 1, 0)) if restarts else 0.0))


class Capital(Contract):
    """The evidence of one stream. It starts at 1 and is e-value and wealth at once."""

    restarts: bool
    steps: int = Field(default=0, ge=0)
    staked: tuple[float, ...] = Field(min_length=len(FRACTIONS), max_length=len(FRACTIONS))

    @classmethod
    def new(cls, *, restarts: bool) -> Capital:
        """Capital 1, nothing seen; `restarts` where the null may stop to hold at any time."""
        return cls(restarts=restarts, staked=tuple(float(part) for part in opening(1, restarts=restarts)[0]))

    @property
    def value(self) -> float:
        """The e-value; reaches 1/α with probability α at most while the null holds."""
        return min(float(value(np.asarray(self.staked), self.steps, restarts=self.restarts)), MOST)

    def after(self, payoff: float, dependence: float = 1.0) -> Capital:
        """The capital after one payoff, of which `dependence` are worth one. ValueError for NaN or +inf."""
        if math.isnan(payoff) or payoff == math.inf:
            raise ValueError("a payoff is a number below infinity")
        staked_SK = np.asarray([self.staked])
        staked_K = advance(staked_SK, [payoff], self.steps, restarts=self.restarts, dependence_S=dependence)[0]
        return Capital(
            restarts=self.restarts,
            steps=self.steps + 1,
            staked=tuple(float(part) for part in np.minimum(staked_K, MOST)),
        )


def spent(alpha: float, attempt: int) -> float:
    """The part α/(k(k+1)) of an error probability that attempt k = 1, 2, … may use; all of them together use α."""
    if attempt < 1:
        raise ValueError("attempts are counted from 1")
    return alpha / (attempt * (attempt + 1))
