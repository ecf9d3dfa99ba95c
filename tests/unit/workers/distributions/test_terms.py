"""Summands of the divergences: right over the whole range, never negative, exactly 0 for equal probabilities."""

import itertools
import math

import numpy as np
import pytest
import torch

from workers.distributions.terms import LOWEST, SPLIT, exp_down, terms

NAMES = ("kl", "reverse_kl", "js", "tv", "entropy_p", "entropy_q")
# Probabilities from certain to vanishing.
LOG_P = (0.0, -1e-4, -0.7, -5.0, -20.0, -60.0)


def exact(lp: float, r: float) -> dict[str, float]:
    """The summands with 60 digits."""
    import mpmath

    with mpmath.workdps(60):
        # What the function is given, not what was meant.
        lp32, r32 = mpmath.mpf(float(np.float32(lp))), mpmath.mpf(float(np.float32(r)))
        p, q = mpmath.exp(lp32), mpmath.exp(lp32 + r32)
        m = (p + q) / 2
        values = (
            q - p - p * r32,
            q * r32 - q + p,
            (p * mpmath.log(p / m) + q * mpmath.log(q / m)) / 2,
            abs(p - q) / 2,
            -p * lp32,
            -q * (lp32 + r32),
        )
        return {name: float(value) for name, value in zip(NAMES, values, strict=True)}


def computed(lp: float, r: float) -> dict[str, float]:
    values = terms(torch.tensor([lp]), torch.tensor([r]))
    return {name: float(value) for name, value in zip(NAMES, values, strict=True)}


def test_summands_agree_with_sixty_digits() -> None:
    sizes = (1e-12, 1e-6, 1e-4, 0.01, 0.1, 0.49, SPLIT - 1e-6, SPLIT, SPLIT + 1e-6, 0.6, 1.0, 3.0, 10.0, 40.0)
    wrong = []
    for start, size, sign in itertools.product(LOG_P, sizes, (-1, 1)):
        r = sign * size
        lp = start - r if start + r > 0 else start  # q is then as likely as p was
        found, right = computed(lp, r), exact(lp, r)
        # Just above the split, JS is a small difference of terms near ⅓. And exp of a large argument multiplies its
        # rounding: 2^-24 of 60 nats is 4e-6. What is less likely than 4e-18 counts as that.
        tolerance = 3e-5 * (SPLIT <= size < 1) + (5e-6 if lp > -10 else 2e-5) + 2.0**-23 * (abs(lp) + abs(r))
        for name in NAMES:
            # Where the lesser of p and q is below 2e-9 of the other it counts as that, which only an entropy notices.
            least = 1e-7 if name.startswith("entropy") else 5e-18 * (40 + size)
            if found[name] != pytest.approx(right[name], rel=tolerance, abs=least):
                wrong.append((name, lp, r, found[name], right[name]))
    assert wrong == []


def test_equal_probabilities_add_exactly_nothing() -> None:
    values = terms(torch.linspace(-80, 0, 1001), torch.zeros(1001))
    for value in values[:4]:
        assert not value.any()


def test_no_summand_is_negative() -> None:
    generator = torch.Generator().manual_seed(0)
    lp = -torch.rand(200_000, generator=generator) * 90
    for size in (1e-7, 1e-3, 0.5, 5.0, 80.0):
        r = torch.minimum(torch.randn(lp.shape, generator=generator) * size, -lp)
        for name, value in zip(NAMES, terms(lp, r), strict=True):
            assert bool(value.isfinite().all()), name
            assert float(value.min()) >= 0, name


def test_a_token_that_is_left_out_adds_next_to_nothing() -> None:
    lp = torch.full((4,), -3.0e38)
    for value in terms(lp, torch.tensor([0.0, 3.0, -100.0, 100.0])):
        assert float(value.max()) < 1e-15


def test_the_exponentials_are_those_of_the_library_down_to_their_limits() -> None:
    u = torch.linspace(-LOWEST, 0, 100_001)
    assert torch.allclose(exp_down(u).double(), u.double().exp(), rtol=2e-5, atol=0)
    assert torch.allclose(exp_down(u / 4).double(), (u.double() / 4).exp(), rtol=1e-5, atol=0)
    assert float(exp_down(torch.tensor(-3.0e38))) == pytest.approx(math.exp(-LOWEST), rel=1e-5)
