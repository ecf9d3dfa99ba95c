"""Means of sums are the means of tokens, with the same intervals."""

import numpy as np
import pytest

from workers.diagnosis.attribute.sums import Clusters, Sums, difference
from workers.distributions import intervals

RNG = np.random.default_rng(4)
DOCUMENT_N = np.repeat(np.arange(8), 2)
VALUES_NL = RNG.lognormal(size=(16, 10))


def test_intervals_are_those_of_the_tokens_themselves():
    sums = Sums(Clusters.of(DOCUMENT_N), (2,))
    for start in (0, 5):
        end = 5 if start == 0 else 16
        for at, values in ((0, VALUES_NL), (1, -VALUES_NL)):
            sums.add(start, values[start:end].sum(1), np.full(end - start, 10.0), at=at)
    clusters = intervals.Clusters(np.repeat(DOCUMENT_N, 10), "documents")
    plain, negative = clusters.means([VALUES_NL.ravel(), -VALUES_NL.ravel()], seed=3)
    found = sums.means(seed=3)
    assert found[0].mean == pytest.approx(VALUES_NL.mean())
    assert found[0].clusters == "documents"
    assert found[0].ci == pytest.approx(plain.interval, rel=1e-9)
    assert found[1].ci == pytest.approx(negative.interval, rel=1e-9)


def test_what_is_not_finite_in_one_document_has_no_mean_and_touches_no_other():
    alone = Sums(Clusters.of(range(8)), ())
    tops = RNG.lognormal(size=8)
    alone.add(0, tops, np.ones(8))
    for broken in (np.nan, np.inf):
        both = Sums(Clusters.of(range(8)), (2,))
        both.add(0, tops, np.ones(8), at=0)
        both.add(0, np.where(np.arange(8) == 3, broken, tops), np.ones(8), at=1)
        first, second = both.means(seed=1)
        assert first == alone.mean(seed=1)
        assert (second.mean, second.ci) == (None, None)


def test_the_order_of_documents_moves_nothing_and_the_seed_a_little():
    tops, bottoms = RNG.lognormal(size=12), RNG.integers(3, 40, 12).astype(float)
    order = RNG.permutation(12)
    plain, moved = (Sums(Clusters.of(range(12)), ()) for _ in range(2))
    plain.add(0, tops, bottoms)
    moved.add(0, tops[order], bottoms[order])
    first, other = plain.mean(seed=1), plain.mean(seed=2)
    assert moved.mean(seed=1).ci == pytest.approx(first.ci, rel=1e-12)
    assert other.ci != first.ci
    assert other.ci == pytest.approx(first.ci, abs=0.05 * (first.ci[1] - first.ci[0]))


def test_between_draws_of_many_ratios_it_is_asked_whether_the_job_is_cancelled():
    sums = Sums(Clusters.of(range(8)), (40, 10))
    sums.add(0, RNG.random((8, 40, 10)), np.full(8, 10.0))
    asked = []
    sums.means(seed=0, resamples=10, check_cancelled=lambda: asked.append(True))
    assert len(asked) > 4


def test_an_interval_is_cut_to_what_the_ratio_can_be():
    sums = Sums(Clusters.of(range(8)), ())
    sums.add(0, [0.0] * 7 + [5.0], np.full(8, 10.0))
    wide, cut = sums.mean(seed=0), sums.mean(seed=0, support=(0.0, 0.2))
    assert wide.ci[0] < 0
    assert wide.ci[1] > 0.2
    assert cut.ci == (0.0, 0.2)
    assert cut.mean == 5 / 80


def test_a_ratio_of_nothing_has_no_value_and_clusters_without_a_part_do_not_count():
    sums = Sums(Clusters.of(range(8)), (2,))
    sums.add(1, np.arange(6.0), np.full(6, 2.0), at=0)
    found = sums.means(seed=0)
    assert found[0].mean == pytest.approx(15 / 12)
    assert found[0].ci is not None
    assert found[1].mean is None
    assert found[1].ci is None


def test_fewer_than_six_clusters_with_a_part_leave_no_interval():
    for windows, by, count in (([0, 0, 1, 1], "windows", 4), (range(6), "documents", 6)):
        assert (Clusters.of(windows).by, Clusters.of(windows).count) == (by, count)
    sums = Sums(Clusters.of(range(8)), ())
    sums.add(0, np.arange(5.0), np.full(5, 2.0))
    assert sums.mean(seed=0).ci is None
    assert sums.mean(seed=0).clusters is None
    sums.add(5, [1.0], [2.0])
    assert sums.mean(seed=0).ci is not None
    one = Sums(Clusters.of([0, 0]), ())
    one.add(0, [8.26, 8.40], [1.0, 1.0])
    assert one.mean(seed=0).ci is None


def test_a_rising_function_maps_the_interval():
    sums = Sums(Clusters.of(range(8)), ())
    sums.add(0, np.arange(1.0, 9.0) ** 2, np.ones(8))
    plain, root = sums.mean(seed=0), sums.mean(seed=0, rising=lambda value: value**0.5)
    assert root.ci == pytest.approx((plain.ci[0] ** 0.5, plain.ci[1] ** 0.5))


def test_a_difference_is_paired():
    first, second = (Sums(Clusters.of(range(8)), ()) for _ in range(2))
    first.add(0, 5 + np.arange(8.0), np.ones(8))
    second.add(0, np.arange(8.0), np.ones(8))
    found = difference(first, second).mean(seed=0)
    assert (found.mean, found.ci) == (5.0, (5.0, 5.0))
