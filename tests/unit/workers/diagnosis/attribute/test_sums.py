"""Means of sums are the means of tokens, with the same intervals."""

import numpy as np
import pytest

from workers.diagnosis.attribute.sums import RESAMPLES, Clusters, Sums, difference
from workers.distributions import intervals

RNG = np.random.default_rng(4)
DOCUMENT_N = np.repeat(np.arange(8), 2)
VALUES_NL = RNG.lognormal(size=(16, 10))


def test_intervals_are_those_of_the_tokens_themselves() -> None:
    sums = Sums(Clusters.of(DOCUMENT_N), (2,))
    for start in (0, 5):
        end = 5 if start == 0 else 16
        for at, values in ((0, VALUES_NL), (1, -VALUES_NL)):
            sums.add(start, values[start:end].sum(1), np.full(end - start, 10.0), at=at)
    clusters = intervals.Clusters(np.repeat(DOCUMENT_N, 10), "documents")
    (expected,) = clusters.means([VALUES_NL.ravel()], resamples=RESAMPLES)
    found = sums.means()
    assert found[0].mean == pytest.approx(VALUES_NL.mean())
    assert found[0].clusters == "documents"
    assert expected.interval is not None
    # the clusters come in another order, and so do the draws
    assert found[0].ci == pytest.approx(expected.interval, rel=0.03)
    assert found[1].ci == pytest.approx((-found[0].ci[1], -found[0].ci[0]), rel=0.03)


def test_windows_stand_for_documents_where_those_are_few() -> None:
    clusters = Clusters.of([0, 0, 1, 1])
    assert (clusters.by, clusters.count) == ("windows", 4)
    assert (Clusters.of(range(6)).by, Clusters.of(range(6)).count) == ("documents", 6)


def test_a_ratio_of_nothing_has_no_value_and_clusters_without_a_part_do_not_count() -> None:
    sums = Sums(Clusters.of(range(8)), (2,))
    sums.add(2, np.arange(4.0), np.full(4, 2.0), at=0)
    found = sums.means()
    assert found[0].mean == pytest.approx(6 / 8)
    assert found[0].ci is not None
    assert found[1].mean is None
    assert found[1].ci is None


def test_a_rising_function_maps_the_interval() -> None:
    sums = Sums(Clusters.of(range(8)), ())
    sums.add(0, np.arange(1.0, 9.0) ** 2, np.ones(8))
    plain, root = sums.mean(), sums.mean(rising=lambda value: value**0.5)
    assert plain.ci is not None
    assert root.ci == pytest.approx((plain.ci[0] ** 0.5, plain.ci[1] ** 0.5))


def test_a_difference_is_paired() -> None:
    first, second = (Sums(Clusters.of(range(8)), ()) for _ in range(2))
    first.add(0, 5 + np.arange(8.0), np.ones(8))
    second.add(0, np.arange(8.0), np.ones(8))
    found = difference(first, second).mean()
    assert (found.mean, found.ci) == (5.0, (5.0, 5.0))
