"""What a task of so many items can show, before it is run. The standard library alone: the front end asks it.

McNemar's test looks at flips only. With n items, a flip rate ψ and a true difference δ in accuracy, its power is about
that of a normal test (Connor, Biometrics 43 (1987) 207–211; Miettinen 1968):

    z(power) = (|δ| √n − z(1 − α/2) √ψ) / √(ψ − δ²)
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Final

# Of all decisions of a job together.
LEVEL: Final = 0.05
# Flip rates that a 4-bit model of good make and a badly damaged one are likely to have.
ASSUMED_FLIP_RATES = (0.05, 0.2)


def level_of(tasks: int) -> float:
    """The level that each of so many tasks is surely tested at: whatever the others show, Holm's and Benjamini and
    Hochberg's corrections reject a p-value up to LEVEL / tasks. Either rejects more where others are rejected."""
    return LEVEL / tasks


def level_told(level: float) -> str:
    """A level that `level_of` gave, in words, with its reason."""
    told, tasks = f"{100 * level:.2g} % level", round(LEVEL / level)
    if tasks == 1:
        return told
    return f"{told}: {100 * LEVEL:.0f} % divided by {tasks} tasks, the strictest step of the Holm correction"


def detectable_difference(items: int, flip_rate: float, *, level: float = LEVEL, power: float = 0.8) -> float | None:
    """The smallest difference (a share of items) that is shown with `power`; None if not even a difference as large
    as the flip rate would be."""
    if items < 1 or not 0 < flip_rate <= 1:
        return None

    def reached(difference: float) -> bool:
        spread = math.sqrt(max(flip_rate - difference**2, 0.0))
        lead = difference * math.sqrt(items) - NormalDist().inv_cdf(1 - level / 2) * math.sqrt(flip_rate)
        return lead >= NormalDist().inv_cdf(power) * spread

    if not reached(flip_rate):
        return None
    low, high = 0.0, flip_rate
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high
