"""Rejection sampling: what comes out follows p, whatever the draft is."""

from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare

from workers.calibration.verified.speculative import NotFiniteError, draw, verify


class Given(np.random.Generator):
    """Uniforms that the test chose."""

    def __init__(self, *uniforms: float) -> None:
        super().__init__(np.random.PCG64(0))
        self._uniforms = list(uniforms)

    def random(self, *_: object, **__: object) -> float:  # type: ignore[override]
        return self._uniforms.pop(0)


P = np.array([[0.5, 0.3, 0.2, 0.0], [0.1, 0.2, 0.3, 0.4]])
Q = np.array([0.2, 0.2, 0.5, 0.1])


def test_a_token_more_probable_under_p_is_always_kept_and_earns_another() -> None:
    assert verify(P, [Q], [0], Given(0.999999, 0.95)) == ([0, 3], 1)


def test_a_token_is_kept_with_probability_p_over_q() -> None:
    # p/q = 0.4 for token 2
    assert verify(P, [Q], [2], Given(0.399, 0.0))[1] == 1
    assert verify(P, [Q], [2], Given(0.401, 0.0))[1] == 0


def test_a_rejected_token_is_replaced_from_the_positive_part_of_p_minus_q() -> None:
    # (p − q)⁺ = .3, .1, 0, 0: token 0 below three quarters of the mass, token 1 above
    assert verify(P, [Q], [2], Given(0.9, 0.74)) == ([0], 0)
    assert verify(P, [Q], [2], Given(0.9, 0.76)) == ([1], 0)


def test_a_token_that_p_excludes_is_never_kept() -> None:
    assert verify(P, [Q], [3], Given(0.0, 0.0)) == ([0], 0)


def test_what_follows_a_rejection_is_dropped() -> None:
    p = np.stack([P[0], P[1], P[1]])
    tokens, kept = verify(p, [Q, Q], [2, 0], Given(0.9, 0.0))
    assert (tokens, kept) == ([0], 0)


@pytest.mark.parametrize("seed", range(2))
def test_blocks_follow_the_reference_exactly_whatever_the_draft(seed: int) -> None:
    """Two tokens from a Markov chain p, drafted from another chain q: all 16 pairs, 20,000 draws."""
    rng = np.random.default_rng(seed)
    start_p, start_q = rng.dirichlet(np.ones(4)), rng.dirichlet(np.ones(4))
    chain_p, chain_q = rng.dirichlet(np.ones(4), 4), rng.dirichlet(np.full(4, 0.3), 4)
    counts: Counter[tuple[int, int]] = Counter()
    for _ in range(20_000):
        out: list[int] = []
        while len(out) < 2:
            # A block of two from wherever it stands, as a stream does.
            before_p = chain_p[out[-1]] if out else start_p
            before_q = chain_q[out[-1]] if out else start_q
            first = draw(before_q, rng.random())
            second = draw(chain_q[first], rng.random())
            p = np.stack([before_p, chain_p[first], chain_p[second]])
            out += verify(p, [before_q, chain_q[first]], [first, second], rng)[0]
        counts[out[0], out[1]] += 1
    pairs = [(a, b) for a in range(4) for b in range(4)]
    observed = [counts[pair] for pair in pairs]
    expected = [20_000 * start_p[a] * chain_p[a, b] for a, b in pairs]
    assert chisquare(observed, expected).pvalue > 1e-3
    wrong = [20_000 * start_q[a] * chain_q[a, b] for a, b in pairs]
    assert chisquare(observed, wrong).pvalue < 1e-12, "the test can tell p from q"


def test_the_share_that_is_kept_is_one_minus_total_variation() -> None:
    rng = np.random.default_rng(0)
    kept = sum(verify(P, [Q], [draw(Q, rng.random())], rng)[1] for _ in range(20_000)) / 20_000
    assert kept == pytest.approx(np.minimum(P[0], Q).sum(), abs=4 * 0.5 / np.sqrt(20_000))


def test_one_hot_distributions_are_greedy_decoding() -> None:
    p = np.eye(4)[[2, 1]]
    assert verify(p, [np.eye(4)[2]], [2], np.random.default_rng(0)) == ([2, 1], 1)
    assert verify(p, [np.eye(4)[3]], [3], np.random.default_rng(0)) == ([2], 0)


def test_a_draw_never_takes_an_index_without_weight() -> None:
    weights = np.array([0.0, 0.1, 0.0, 0.9, 0.0])
    assert draw(weights, 0.0) == 1
    assert draw(weights, np.nextafter(1.0, 0.0)) == 3


@pytest.mark.parametrize("weights", [[0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0]])
def test_nothing_is_drawn_from_weights_that_are_none(weights: list[float]) -> None:
    with pytest.raises(NotFiniteError, match="nothing can be drawn"):
        draw(np.array(weights), 0.5)


def test_a_reference_that_is_not_finite_and_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(NotFiniteError, match="not finite"):
        verify(np.full((2, 4), np.nan), [Q], [0], np.random.default_rng(0))
    with pytest.raises(ValueError, match="do not fit"):
        verify(P, [Q, Q], [0], np.random.default_rng(0))
