"""What one token of the vocabulary adds to each divergence, free of cancellation.

p and q are its probabilities in the two models, r = ln(q/p), x = |r|, g = max(p, q), E = e^−x, w = 1 − E. Then

    KL(p‖q)   g·A where q ≤ p, else g·B     A = x − w          TV   g·w / 2
    KL(q‖p)   g·B where q ≤ p, else g·A     B = w − x·E        JS   g·J,  2J = (1 + E)·ln(2 / (1 + E)) − x·E

Since Σp = Σq = 1, the sums are the usual definitions: KL(p‖q) = Σ p·ln(p/q) = Σ (p·ln(p/q) − p + q), whose summands
are those above. Unlike p·ln(p/q), none of them is negative, so none cancels another, and a KL of 1e-9 nats does not
drown in the rounding of two log-sum-exps. A, B, J are of second order in x; below x = ½ polynomials stand in for the
differences that would lose it. Each is 0 exactly where r is 0.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.polynomial import Chebyshev, Polynomial
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

# x below which A, B and J are polynomials.
SPLIT = 0.5
# e^-LOWEST is 4e-18: what is less likely adds nothing to a float32 sum, whatever the vocabulary.
LOWEST = 40.0


def _fit(function: Callable[[Array], Array], degree: int, high: float) -> tuple[float, ...]:
    """Coefficients, constant first, that interpolate a smooth function in the Chebyshev points of [0, high]."""
    fitted: Polynomial = Chebyshev.interpolate(function, degree, domain=[0.0, high]).convert(kind=Polynomial)
    return tuple(float(coefficient) for coefficient in fitted.coef)


def _half_log(e: Array) -> Array:
    """(1 + E)·ln(2 / (1 + E)), the part of 2J that is smooth in E."""
    value: Array = (1 + e) * (math.log(2) - np.log1p(e))
    return value


# Relative errors below 5e-8, float32's own. The points nearest 0 lie far enough off for float64 to resolve.
_A = _fit(lambda x: (x + np.expm1(-x)) / x**2, 4, SPLIT)
_J = _fit(lambda x: 0.5 * (_half_log(np.exp(-x)) - x * np.exp(-x)) / x**2, 4, SPLIT)
_Q = _fit(_half_log, 6, math.exp(-SPLIT))
_E = _fit(lambda v: np.exp(-v), 7, 1.25)


def _polynomial(coefficients: tuple[float, ...], x: torch.Tensor) -> torch.Tensor:
    value = x * coefficients[-1] + coefficients[-2]
    for coefficient in coefficients[-3::-1]:
        value = value * x + coefficient
    return value


def exp_minus(x: torch.Tensor, power: int) -> torch.Tensor:
    """e^−x for 0 ≤ x ≤ 1.25·power as (e^(−x/power))^power, which multiplies float32's rounding by `power`; beyond, that
    of the limit.

    Where it is compiled for a CPU it takes half the time of the mathematical library, which is called for every vector.
    """
    root = _polynomial(_E, torch.clamp(x, max=1.25 * power) * (1 / power))
    # Inductor inlines a small power into one loop body, and calls the library again for a large one.
    return torch.pow(torch.pow(root, power // 2), 2)


def exp_down(u: torch.Tensor) -> torch.Tensor:
    """e^u for u ≤ 0, relative error below 5e-6 down to u = −10 and 2e-5 down to −`LOWEST`; smaller u count as that."""
    return exp_minus(-u, 32)


def terms(lp: torch.Tensor, r: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The summands of KL(p‖q), KL(q‖p), JS, TV and the two entropies from ln p and r = ln(q/p), elementwise.

    All are at least 0 where ln p and ln q are at most 0. A token that is left out has a huge negative, finite ln p.
    """
    x = r.abs()
    E = exp_minus(x, 16)
    xE = torch.clamp(x, max=20) * E  # where x is larger, E is not as small as it should be
    lq = torch.clamp(lp + r, min=-LOWEST)
    lp = torch.clamp(lp, min=-LOWEST)
    up = r > 0
    g = exp_down(torch.maximum(lp, lq))
    small = x < SPLIT
    near = x * x
    A = near * _polynomial(_A, x)
    w = torch.where(small, x - A, 1 - E)
    A = torch.where(small, A, x - w)
    B = torch.where(small, x * w - A, w - xE)
    J = torch.where(small, near * _polynomial(_J, x), 0.5 * (_polynomial(_Q, E) - xE))
    lesser = g * E
    return (
        g * torch.where(up, B, A),
        g * torch.where(up, A, B),
        g * J,
        0.5 * g * w,
        -torch.where(up, lesser, g) * lp,
        -torch.where(up, g, lesser) * lq,
    )
