"""Heads of every kind, and what a divergence finds of them beside float64: for the tests of `Divergence`."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.support.distributions import Case, disturbed, make_head
from workers.distributions.divergence import Divergence, Precision
from workers.distributions.head import Head
from workers.distributions.token_values import TokenValues

DIVERGENCES = ("kl", "reverse_kl", "js", "tv")
FLOATS = (
    *DIVERGENCES,
    "logp_reference",
    "logp_candidate",
    "entropy_reference",
    "entropy_candidate",
    "top_probability_reference",
)
COUNTS = (
    "top1_agree",
    "overlap5",
    "overlap10",
    "rank_of_reference_top",
    "rank_token_reference",
    "rank_token_candidate",
    "top_reference",
    "top_candidate",
)
# What depends on one model alone.
OWN = {
    "reference": ("logp_reference", "entropy_reference", "top_probability_reference"),
    "candidate": ("logp_candidate", "entropy_candidate"),
}
# What is allowed of the mean, relative to float64 from the same hidden states and heads.
ALLOWED: dict[Precision, float] = {"fast": 2e-3, "float32": 1e-4}
PRECISIONS: tuple[Precision, ...] = ("fast", "float32")
# How far hidden states move when weights are rounded to 8, 6 and 4 bits.
BITS = {8: 0.006, 6: 0.025, 4: 0.1}


def values_of(given_case: Case, precision: Precision) -> TokenValues:
    divergence = Divergence(given_case.reference, given_case.candidate, precision=precision, device="cpu")
    return divergence(given_case.reference_TD, given_case.candidate_TD, given_case.next_T)


def assert_means(given_case: Case, precision: Precision, *, allowed: float | None = None) -> None:
    found, right = values_of(given_case, precision), given_case.oracle()
    assert found.finite.all()
    for name in FLOATS:
        mean = float(getattr(found, name).astype(np.float64).mean())
        assert mean == pytest.approx(float(right[name].mean()), rel=allowed or ALLOWED[precision]), name
    for name in DIVERGENCES:
        assert getattr(found, name).min() >= 0, name


def moved(head: Head, by: float, **changes: object) -> Head:
    """The head with its weights disturbed, as a quantized one is."""
    return replace(head, weight_VD=disturbed(head.weight_VD, by * float(head.weight_VD.float().std())), **changes)  # type: ignore[arg-type]


PLAIN = make_head(1000, 64, spread=3.0)
HEADS: dict[str, tuple[Head, Head]] = {
    "plain": (PLAIN, PLAIN),
    "bias": (make_head(1000, 64, spread=3, bias=True),) * 2,
    "scale": (make_head(1000, 64, spread=12, scale=0.25),) * 2,
    "negative scale": (make_head(1000, 64, spread=3, scale=-1.0),) * 2,
    "soft cap": (make_head(1000, 64, spread=6, softcap=8.0),) * 2,
    "bias, soft cap and scale": (make_head(1000, 64, spread=6, bias=True, softcap=8.0, scale=0.7),) * 2,
    "weights differ": (PLAIN, moved(PLAIN, 0.05)),
    "weights have nothing in common": (PLAIN, make_head(1000, 64, spread=3, seed=9)),
    "only the candidate has a bias": (PLAIN, replace(PLAIN, bias_V=torch.linspace(-1, 1, 1000))),
    "only the reference has a bias": (replace(PLAIN, bias_V=torch.linspace(-1, 1, 1000)), PLAIN),
    "scales differ": (PLAIN, replace(PLAIN, scale=1.1)),
    "caps differ": (replace(PLAIN, softcap=10.0), replace(PLAIN, softcap=12.0)),
    "only the reference is capped": (replace(PLAIN, softcap=10.0), PLAIN),
    "only the candidate is capped": (PLAIN, replace(PLAIN, softcap=10.0)),
    "all differs": (
        make_head(1000, 64, spread=6, bias=True, softcap=8.0, scale=0.7),
        make_head(1000, 64, spread=6, seed=3, softcap=9.0, scale=0.8),
    ),
    "widths differ": (PLAIN, make_head(1000, 96, spread=3, seed=5)),
}
