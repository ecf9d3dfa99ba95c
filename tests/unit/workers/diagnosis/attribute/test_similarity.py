"""Linear CKA against the estimator written out, and against what it must not see."""

import numpy as np
import pytest
import torch

from app.contracts.errors import ErrorCode, HemostatError
from tests.support.internals import DOCUMENT_N, TOKENS_NL, at_borders
from workers.diagnosis.attribute.similarity import HsicSums, similarity, u_centred
from workers.diagnosis.attribute.sums import Clusters


def states(seed, tokens=20, width=7):
    return torch.randn(tokens, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def hsic(first, second):
    """The unbiased estimator as Song et al. write it."""
    n = len(first)
    k, m = ((x @ x.T).fill_diagonal_(0) for x in (first, second))
    one = torch.ones(n, dtype=torch.float64)
    trace = torch.trace(k @ m)
    means = (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
    return float((trace + means - 2 * (one @ k @ m @ one) / (n - 2)) / (n * (n - 3)))


def test_u_centred_products_are_the_unbiased_hsic():
    first, second = states(1), states(2, width=3)
    ours, theirs = u_centred(first @ first.T), u_centred(second @ second.T)
    assert float((ours * theirs).sum()) / (20 * 17) == pytest.approx(hsic(first, second), rel=1e-12)
    assert float((ours * ours).sum()) / (20 * 17) == pytest.approx(hsic(first, first), rel=1e-12)
    torch.testing.assert_close(ours.sum(0), torch.zeros(20, dtype=torch.float64), atol=1e-12, rtol=0)


def test_all_pairs_of_borders_and_layers_are_compared(tiny, tmp_path):
    tokens_NL = TOKENS_NL[:3]
    folders = tiny("llama"), tiny("llama", hidden_size=96, num_hidden_layers=2)
    with at_borders(*folders, scratch=tmp_path, tokens_NL=tokens_NL) as (reference, candidate):
        found = similarity(reference, candidate, Clusters.of([0, 1, 2]))
        h = [torch.stack([b.read(i, 0, 3) for i in range(len(b))])[:, :, 1:].double() for b in (reference, candidate)]
    for sums, (ours, theirs) in ((found.states, h), (found.added, [one.diff(dim=0) for one in h])):
        expected = np.zeros((len(ours), len(theirs)))
        for i, first in enumerate(ours):
            for j, second in enumerate(theirs):
                cross, one, other = (
                    sum(hsic(a[n], b[n]) for n in range(3))
                    for a, b in ((first, second), (first, first), (second, second))
                )
                expected[i, j] = max(0.0, cross / (one * other) ** 0.5)
        np.testing.assert_allclose(sums.cka(), expected, rtol=1e-6, atol=1e-9)


def test_rotating_scaling_and_moving_is_not_seen_and_strangers_are_not_alike():
    first, stranger = states(1, tokens=100, width=40), states(2, tokens=100, width=40)
    turn = torch.linalg.qr(states(3, 40, 40)).Q
    moved = 3 * first @ turn + 7

    def cka(a, b):
        return float(hsic(a, b) / (hsic(a, a) * hsic(b, b)) ** 0.5)

    ours = [u_centred(one @ one.T) for one in (first, moved, stranger)]
    alike = [float((ours[0] * other).sum() / (ours[0].norm() * other.norm())) for other in ours]
    assert alike[0] == pytest.approx(1, rel=1e-12)
    assert alike[1] == pytest.approx(1, rel=1e-9)
    assert abs(alike[2]) < 0.05  # the biased estimator says 0.29
    assert alike[2] == pytest.approx(cka(first, stranger), rel=1e-9)


def test_what_does_not_vary_is_like_nothing():
    sums = HsicSums(np.zeros((2, 1, 2)), np.ones((2, 1)), np.array([[0.0, 1.0], [0.0, 1.0]]))
    assert sums.cka().tolist() == [[0.0, 0.0]]


def test_windows_too_short_are_refused(tiny, tmp_path):
    with (
        at_borders(tiny("llama"), scratch=tmp_path, tokens_NL=TOKENS_NL[:, :5]) as (ours,),
        pytest.raises(HemostatError, match="too short") as caught,
    ):
        similarity(ours, ours, Clusters.of(DOCUMENT_N))
    assert caught.value.code == ErrorCode.INVALID_REQUEST
    assert caught.value.pointer == "/window"
