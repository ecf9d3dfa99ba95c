"""What one token of the vocabulary adds to each divergence, free of cancellation.

p and q are its probabilities in the two models, r = ln(q/p), x = |r|, g = max(p, q), E = e^−x, w = 1 − E. Then

    KL(p‖q)   g·A where q ≤ p, else g·B     A = x − w          TV   g·w / 2

    KL(q‖p)   g·B where q ≤ p, else g·A     B = w − x·E        JS   g·J,  2J = (1 + E)·ln(2 / (1 + E)) − x·E

Since Σp = Σq = 1, the sums are the usual definitions: KL(p‖q) = Σ p·ln(p/q) = Σ (p·ln(p/q) − p + q), whose summands
are those above. Unlike p·ln(p/q), none of them is negative, so none cancels another, and a KL of 1e-9 nats does not
drown in the rounding of two log-sum-exps. A, B, J are of second order in x. Below x = ½ a polynomial replaces the
difference that would lose it, B = x·w − A, and 2J = B − w²·C(w) with a smooth C. Each is 0 exactly where r is 0.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.polynomial import Chebyshev, Polynomial
from numpy.typing import NDArray

from app.contracts.distances import DISTANCES

Array = NDArray[np.floating[Any]]

# x below which A is a polynomial.
SPLIT = 0.5
# e^−LOWEST is 4e-18: what is less likely adds nothing to a float32 sum, whatever the vocabulary.
LOWEST = 40.0
# Beyond it E is as small as w = 1 − E can tell.
_LARGEST_X = 20.0


def _fit(function: Callable[[Array], Array], degree: int, end: float) -> tuple[float, ...]:
    """Coefficients, constant first, that interpolate a smooth function in the Chebyshev points between 0 and `end`."""
    fitted: Polynomial = Chebyshev.interpolate(function, degree, domain=[0.0, end]).convert(kind=Polynomial)
    return tuple(float(coefficient) for coefficient in fitted.coef)


def _smooth(w: Array) -> Array:
    """(B − 2J) / w²: what is left of 2J = B − w²·C(w) is smooth in w."""
    value: Array = (w + (2 - w) * np.log1p(-w / 2)) / w**2
    return value


# Relative errors about 1e-7, float32's own. The points nearest 0 lie far enough off for float64 to resolve.
_A = _fit(lambda x: (x + np.expm1(-x)) / x**2, 4, SPLIT)
_C = _fit(_smooth, 6, 1.0)
# 32nd and 16th roots of the exponentials: over a short range a polynomial will do.
_DOWN = _fit(lambda u: np.exp(u / 32), 7, -LOWEST)
_FROM_LOWEST = _fit(lambda t: np.exp((t - LOWEST) / 32), 7, LOWEST)
_E = _fit(lambda x: np.exp(-x / 16), 7, _LARGEST_X)


def _polynomial(coefficients: tuple[float, ...], x: torch.Tensor) -> torch.Tensor:
    value = x * coefficients[-1] + coefficients[-2]
    for coefficient in coefficients[-3::-1]:
        value = value * x + coefficient
    return value


def _wide_polynomial(coefficients: tuple[float, ...], x: torch.Tensor) -> torch.Tensor:
    """The same for eight coefficients by Estrin's scheme: a few more operations that wait less for each other."""
    c = coefficients
    square = x * x
    low = (c[0] + c[1] * x) + (c[2] + c[3] * x) * square
    high = (c[4] + c[5] * x) + (c[6] + c[7] * x) * square
    return low + high * (square * square)


def exp_down(u: torch.Tensor) -> torch.Tensor:
    """e^u for u ≤ 0, relative error below 1e-5 down to u = −10 and 2e-5 down to −`LOWEST`; smaller u count as that.

    Compiled for a CPU it takes a third of the time of the mathematical library, which is called for every vector. Here
    relu is the only bound that Inductor does not burden with a care for NaN."""
    return _power_of_32(_wide_polynomial(_FROM_LOWEST, torch.relu(u + LOWEST)))


def _power_of_32(root: torch.Tensor) -> torch.Tensor:
    """In two steps: Inductor multiplies out powers below 32, and calls the library for others."""
    return torch.pow(torch.pow(root, 16), 2)


class Parts(NamedTuple):
    """What the summands are made of, as above; `up`: q is above p."""

    g: torch.Tensor
    up: torch.Tensor
    A: torch.Tensor
    B: torch.Tensor
    J: torch.Tensor
    w: torch.Tensor
    E: torch.Tensor


# By the name in `app.contracts.distances`, in the same order.
TERMS: Final[dict[str, Callable[[Parts], torch.Tensor]]] = {
    "kl": lambda of: of.g * torch.where(of.up, of.B, of.A),
    "reverse_kl": lambda of: of.g * torch.where(of.up, of.A, of.B),
    "js": lambda of: of.g * of.J,
    "tv": lambda of: 0.5 * of.g * of.w,
}


def terms(lp: torch.Tensor, r: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The summands of each distance in `TERMS` and of the two entropies from ln p and r = ln(q/p), elementwise.

    All are at least 0 if ln p and ln q are at most 0. A token that is left out has a huge negative, finite ln p.
    """
    x = r.abs()
    up = r > 0
    near = torch.clamp(x, max=_LARGEST_X)
    E = torch.pow(torch.pow(_wide_polynomial(_E, near), 8), 2)
    small = x < SPLIT
    square = x * x * _polynomial(_A, x)
    w = torch.where(small, x - square, 1 - E)
    A = torch.where(small, square, near - w)
    B = near * w - A
    A = A + (x - near)
    J = 0.5 * (B - w * w * _polynomial(_C, w))
    lq = torch.clamp(lp + r, min=-LOWEST)
    lp = torch.clamp(lp, min=-LOWEST)
    g = _power_of_32(_wide_polynomial(_DOWN, torch.where(up, lq, lp)))
    lesser = g * E
    parts = Parts(g, up, A, B, J, w, E)
    return (
        *(term(parts) for term in TERMS.values()),
        -torch.where(up, lesser, g) * lp,
        -torch.where(up, g, lesser) * lq,
    )


def distances(lp: torch.Tensor, lq: torch.Tensor) -> dict[str, torch.Tensor]:
    """Each distance of rows of ln p and ln q, [T, V] to [T]; by the library's functions, which need no compiler."""
    r = lq - lp
    x, up = r.abs(), r > 0
    E, w = torch.exp(-x), -torch.expm1(-x)
    B = w - x * E
    J = 0.5 * (torch.log(2 / (1 + E)) * (1 + E) - x * E)
    parts = Parts(torch.maximum(lp, lq).exp(), up, x - w, B, J, w, E)
    return {of.name: TERMS[of.name](parts).sum(1).clamp(min=0, max=of.most) for of in DISTANCES}
