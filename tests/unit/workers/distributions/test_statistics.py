"""Order statistics and the rest against numpy, scipy, the standard library, and by hand."""

import itertools
import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import stats

from workers.distributions.statistics import (
    KL_EDGES,
    exponential,
    histogram,
    order_statistics,
    perplexity,
    root_mean_square,
)

Array = NDArray[np.float64]
arrays = hnp.arrays(np.float64, st.integers(1, 200), elements=st.floats(-1e6, 1e6))


def test_order_statistics_equal_scipys_and_the_standard_librarys() -> None:
    values = np.random.default_rng(0).lognormal(-3, 2, 12_345)
    found = order_statistics(values)
    for name, probability in {
        "p001": 0.001, "p01": 0.01, "p05": 0.05, "p10": 0.1, "median": 0.5,
        "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999,
    }.items():  # fmt: skip
        # alphap = betap = 1 is numpy's linear definition
        expected = stats.mstats.mquantiles(values, [probability], alphap=1, betap=1)[0]
        assert found[name] == pytest.approx(expected, rel=1e-9), name
    cuts = statistics.quantiles(values.tolist(), n=1000, method="inclusive")
    assert found["median"] == pytest.approx(statistics.median(values.tolist()), rel=1e-12)
    assert (found["p95"], found["p99"], found["p999"]) == pytest.approx((cuts[949], cuts[989], cuts[998]), rel=1e-9)
    assert (found["min"], found["max"]) == (values.min(), values.max())


def test_single_precision_is_summarized_in_double() -> None:
    values = np.random.default_rng(1).lognormal(size=1001).astype(np.float32)
    assert order_statistics(values)["p99"] == float(np.quantile(values.astype(np.float64), 0.99))
    assert root_mean_square(np.full(10, 1e30, dtype=np.float32)) == pytest.approx(1e30, rel=1e-6)


@given(arrays)
def test_order_statistics_rise_and_do_not_depend_on_order(values: Array) -> None:
    found = list(order_statistics(values).values())
    assert all(first <= second or math.isclose(first, second) for first, second in itertools.pairwise(found))
    assert order_statistics(values[::-1]) == order_statistics(values)


def test_root_mean_square_by_hand() -> None:
    assert root_mean_square([3.0, -4.0]) == pytest.approx(math.sqrt(12.5))


def test_perplexity_is_the_geometric_mean_of_the_inverse_probabilities() -> None:
    probabilities = np.array([0.5, 0.25, 0.01])
    assert perplexity(np.log(probabilities)) == pytest.approx(1 / statistics.geometric_mean(probabilities), rel=1e-12)
    assert perplexity(np.full(4, -1e4)) == math.inf
    assert exponential(1e4) == math.inf
    assert exponential(-1e4) == 0.0


def test_histogram_counts_like_numpys_and_loses_nothing() -> None:
    values = np.concatenate([[0.0, -1e-9, 1e-8, 10.0, 25.0], np.random.default_rng(2).lognormal(-4, 3, 5000)])
    found = histogram(values)
    assert found.edges == KL_EDGES
    assert (KL_EDGES[0], KL_EDGES[-1]) == pytest.approx((1e-8, 10.0))
    inside = values[values < KL_EDGES[-1]]
    assert found.counts == tuple(np.histogram(inside, np.asarray(KL_EDGES))[0])
    assert found.below == np.count_nonzero(values < 1e-8)
    assert found.above == np.count_nonzero(values >= 10.0)
    assert found.below + found.above + sum(found.counts) == values.size
