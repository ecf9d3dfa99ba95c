"""States, weights and logits that are not finite, or absurd: what is marked, and what stays as exact as elsewhere."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.support.distributions import case, make_head
from tests.support.divergences import ALLOWED, COUNTS, FLOATS, HEADS, OWN, PLAIN, PRECISIONS, values_of
from workers.distributions.divergence import Precision
from workers.distributions.token_values import FIELDS

pytestmark = pytest.mark.usefixtures("eager")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 3.0e38])
@pytest.mark.parametrize("side", ["reference", "candidate"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_is_not_finite_is_marked_and_touches_nothing_else(side: str, bad: float, precision: Precision) -> None:
    clean = case(PLAIN, PLAIN, 140, by=0.05)
    expected = values_of(clean, precision)
    spoiled = (clean.reference_TD if side == "reference" else clean.candidate_TD).clone()
    spoiled[3, 10] = bad
    spoiled[130] = bad
    found = values_of(replace(clean, **{f"{side}_TD": spoiled}), precision)
    rows = np.isin(np.arange(140), [3, 130])
    assert np.array_equal(found.finite, ~rows)
    for name in FIELDS:
        assert np.array_equal(getattr(found, name)[~rows], getattr(expected, name)[~rows]), name
    # What is the other side's alone is that of the clean run: another product may round the last bit otherwise.
    others = OWN["candidate" if side == "reference" else "reference"]
    for name in FLOATS:
        if name in others:
            allowed = {"fast": 5e-3, "float32": 1e-5}[precision]
            assert getattr(found, name)[rows] == pytest.approx(getattr(expected, name)[rows], abs=allowed), name
        else:
            assert np.isnan(getattr(found, name)[rows]).all(), name
    assert not found.top1_agree[rows].any()
    for name in COUNTS:
        assert not getattr(found, name)[rows].any(), name


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("side", ["reference", "candidate"])
@pytest.mark.parametrize("heads", HEADS)
def test_the_sound_side_s_own_values_are_as_exact_as_elsewhere(heads: str, side: str, precision: Precision) -> None:
    """Of every kind of head, the other side's states being NaN everywhere."""
    clean = case(*HEADS[heads], 200, by=0.05)
    broken = "candidate" if side == "reference" else "reference"
    nothing = torch.full_like(clean.candidate_TD if broken == "candidate" else clean.reference_TD, math.nan)
    found = values_of(replace(clean, **{f"{broken}_TD": nothing}), precision)
    right = clean.oracle()
    assert not found.finite.any()
    for name in FLOATS:
        if name in OWN[side]:
            mean = float(getattr(found, name).astype(np.float64).mean())
            assert mean == pytest.approx(float(right[name].mean()), rel=ALLOWED[precision]), name
        else:
            assert np.isnan(getattr(found, name)).all(), name


def test_a_weight_that_is_not_finite_marks_every_position() -> None:
    weight = PLAIN.weight_VD.clone()
    weight[500, 3] = math.nan
    broken = replace(PLAIN, weight_VD=weight)
    assert not values_of(case(PLAIN, broken, 20, by=0.05), "fast").finite.any()


@pytest.mark.parametrize("weight", [1e35, math.inf, math.nan])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_by_a_broken_head_of_the_reference_nothing_is_told_of_the_candidate(
    precision: Precision, weight: float
) -> None:
    weight_VD = PLAIN.weight_VD.clone()
    weight_VD[500, 3] = weight
    found = values_of(case(replace(PLAIN, weight_VD=weight_VD), PLAIN, 20, by=0.05), precision)
    assert not found.finite.any()
    for name in FLOATS:
        assert np.isnan(getattr(found, name)).all(), name


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_candidate_with_absurd_logits_has_huge_but_finite_divergences(precision: Precision) -> None:
    reference = make_head(500, 32, spread=3.0)
    candidate = replace(reference, weight_VD=(reference.weight_VD.float().flip(0) * 1e6).bfloat16())
    given_case = case(reference, candidate, 64, by=0.0)
    found, right = values_of(given_case, precision), given_case.oracle()
    assert found.finite.all()
    assert right["kl"].mean() > 1e6
    for name in ("kl", "tv", "js"):
        assert float(getattr(found, name).mean()) == pytest.approx(float(right[name].mean()), rel=5e-3), name
