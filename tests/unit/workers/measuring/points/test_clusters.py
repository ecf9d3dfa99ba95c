"""Estimates from sums by window: the same as those from tokens."""

import numpy as np
import pytest

from workers.distributions.intervals import Clusters
from workers.distributions.significance import p_values
from workers.measuring.points.clusters import Clustered

RNG = np.random.default_rng(8)


def corpus(documents):
    """Windows of 3 to 12 tokens, three of them a document, and values of two quantities a token."""
    lengths = RNG.integers(3, 13, 3 * documents)
    window = np.repeat(np.arange(3 * documents), lengths)
    values = RNG.lognormal(0, 1, (2, window.size)) - 1.2
    sums = [np.bincount(window, weights=row) for row in values]
    return lengths, window, values, sums


@pytest.mark.parametrize(("documents", "by"), [(20, "documents"), (4, "windows")])
def test_sums_by_window_give_what_tokens_give(documents, by):
    lengths, window, values, sums = corpus(documents)
    clusters = Clustered.of(lengths.tolist(), np.arange(3 * documents) // 3)
    assert clusters.by == by
    found = clusters.estimates([clusters.sums(row) for row in sums], seed=3)
    of_tokens = Clusters.of(window // 3, window)
    expected = of_tokens.means(list(values), seed=3)
    for one, other in zip(found, expected, strict=True):
        assert one.mean == pytest.approx(other.mean, rel=1e-12)
        assert one.interval == pytest.approx(other.interval, rel=1e-6)
        assert one.standard_error == pytest.approx(other.standard_error, rel=1e-9)
    p = clusters.p_values([clusters.sums(row) for row in sums], seed=3)
    assert p == pytest.approx(p_values(list(values), of_tokens, seed=3), abs=1e-3)


def test_p_belongs_to_the_interval_and_the_order_of_documents_moves_neither():
    rng = np.random.default_rng(5)
    for seed in range(40):
        sums = rng.lognormal(0, 1, 12) - 1.0
        lengths, documents = rng.integers(3, 13, 12), np.arange(12)
        order = rng.permutation(12)
        clusters, moved = (Clustered.of(lengths[at].tolist(), documents) for at in (documents, order))
        [estimate] = clusters.estimates([clusters.sums(sums)], seed=seed)
        [p] = clusters.p_values([clusters.sums(sums)], seed=seed)
        assert (p < 0.05) == (not estimate.interval[0] <= 0 <= estimate.interval[1])
        assert moved.p_values([moved.sums(sums[order])], seed=seed) == [p]


def test_windows_without_a_token_count_for_nothing():
    clusters = Clustered.of([4, 0, 6], np.array([0, 1, 2]))
    assert clusters.counts_N.tolist() == [4, 6]
    assert clusters.sums([1.0, 9.0, 2.0]).tolist() == [1.0, 2.0]


def test_one_window_has_no_interval():
    clusters = Clustered.of([5], np.array([0]))
    [found] = clusters.means([clusters.sums([1.0])], seed=0)
    assert (found.mean, found.ci) == (0.2, None)
    assert clusters.p_values([clusters.sums([1.0])], seed=0) == [None]


def test_no_token_is_refused():
    with pytest.raises(ValueError, match="no tokens"):
        Clustered.of([0, 0], np.array([0, 1]))
