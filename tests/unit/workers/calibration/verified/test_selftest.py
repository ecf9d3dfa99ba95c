"""The judgement of the self-test, against scipy and cases made by hand."""

from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare

from workers.calibration.verified.selftest import P_LEAST, distance, fit, mistakes, power_against


def test_the_p_value_is_scipys_where_every_cell_is_large() -> None:
    exact = {0: 0.5, 1: 0.3, 2: 0.2}
    counts = Counter({0: 480, 1: 330, 2: 190})
    assert fit(counts, exact) == pytest.approx(chisquare([480, 330, 190], [500, 300, 200]).pvalue, rel=1e-12)


def test_rare_cells_are_judged_together() -> None:
    exact = {0: 0.9, **dict.fromkeys(range(1, 101), 0.1 / 100)}
    counts = Counter({0: 850, **dict.fromkeys(range(1, 51), 2), **dict.fromkeys(range(51, 101), 1)})
    assert fit(counts, exact) == pytest.approx(chisquare([850, 150], [900, 100]).pvalue, rel=1e-12)


def test_what_cannot_happen_is_refused_outright() -> None:
    assert fit(Counter({0: 999, 7: 1}), {0: 1.0, 7: 0.0}) == 0.0
    assert fit(Counter({0: 999, 7: 1}), {0: 1.0}) == 0.0


def test_p_values_of_right_draws_are_uniform_and_those_of_wrong_ones_vanish() -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(400, 0.1))
    q = 0.9 * p + 0.1 / 400  # a tenth of the mass spread evenly
    exact = dict(enumerate(p))
    right = [fit(Counter(rng.choice(400, 2000, p=p).tolist()), exact) for _ in range(200)]
    assert np.mean(np.array(right) < 0.1) == pytest.approx(0.1, abs=0.07)
    assert min(right) > 1e-4
    assert max(fit(Counter(rng.choice(400, 2000, p=q).tolist()), exact) for _ in range(20)) < 1e-4


def test_the_power_is_the_share_of_wrong_draws_that_are_refused() -> None:
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.full(300, 0.2))
    q = 0.93 * p + 0.07 * rng.dirichlet(np.full(300, 0.2))
    power = power_against(*distance(q, p, 2000))
    assert 0.1 < power < 0.9, "neither hopeless nor certain, so that the comparison tells something"
    exact = dict(enumerate(p))
    refused = [fit(Counter(rng.choice(300, 2000, p=q).tolist()), exact) < P_LEAST for _ in range(400)]
    assert np.mean(refused) == pytest.approx(power, abs=0.1)


def test_the_power_against_the_same_is_the_rate_of_false_refusals_and_against_another_it_is_one() -> None:
    p = np.full(50, 0.02)
    assert power_against(*distance(p, p, 2000)) == pytest.approx(P_LEAST, rel=1e-3)
    assert power_against(*distance(np.eye(50)[0], p, 2000)) == 1.0
    assert power_against(0.0, 0) == 0.0


def test_mistakes_are_distributions_that_nobody_wants() -> None:
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.full(40, 0.5)), rng.dirichlet(np.full(40, 0.5))
    for wrong in mistakes(q, p):
        assert wrong.sum() == pytest.approx(1)
        assert wrong.min() >= 0
        assert 0.5 * np.abs(wrong - p).sum() > 0.02
    # The second, drawn: a kept token of q, else one of p.
    tokens = rng.choice(40, 100_000, p=q)
    rejected = rng.random(100_000) * q[tokens] >= p[tokens]
    tokens[rejected] = rng.choice(40, int(rejected.sum()), p=p)
    assert np.abs(np.bincount(tokens, minlength=40) / 100_000 - mistakes(q, p)[1]).max() < 0.01
    same, *_ = mistakes(p, p)
    assert same.tolist() == p.tolist(), "a candidate that is the reference makes this mistake invisible"
