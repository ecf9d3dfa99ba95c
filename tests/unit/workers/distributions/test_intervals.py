"""Clustered intervals: right formulas, right degenerate cases, and coverage by simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from tests.support.token_sums import lengths, token_sums
from workers.distributions.intervals import (
    FEWEST_CLUSTERS,
    T_LIMIT,
    Clusters,
    Estimate,
    Ratios,
    ratio_intervals,
    strata_of,
)

Array = NDArray[np.float64]


def documents(count: int, *, seed: int = 0, sigma: float = 0.5) -> tuple[NDArray[np.int64], Array]:
    """Document of each token, and skewed values with a document effect, over documents of unequal length."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(5, 60, count)
    document = np.repeat(np.arange(count), lengths)
    return document, np.exp(sigma * rng.standard_normal(count))[document] * rng.gamma(0.5, size=document.size)


def estimate(values: Array, labels: NDArray[np.int64]) -> Estimate:
    return Clusters(labels, "documents").means([values])[0]


def interval(found: Estimate) -> tuple[float, float]:
    assert found.interval is not None
    return found.interval


@pytest.mark.parametrize("sigma", [0.3, 1.0])
def test_the_level_is_lowered_by_the_squared_skewness_over_the_number_of_clusters(sigma: float) -> None:
    """By 0.3 γ²/N of 5 %, and by 2 % at most; γ is scipy's."""
    sums = np.exp(sigma * np.random.default_rng(1).standard_normal(40))
    (kept,) = Ratios.of(sums[None], np.full((1, 40), 7.0)).level_kept()
    lowered = min(0.02, 0.3 * float(stats.skew(sums)) ** 2 / 40)
    assert kept == pytest.approx(1 - lowered / 0.05, rel=1e-9)
    assert (lowered < 0.02) == (sigma < 1), "one on either side of the limit"


# --- the simulation


def test_coverage_with_lognormal_document_effects_unequal_lengths_and_correlated_tokens() -> None:
    """At 30 documents at least 91.5 % of the intervals hold the true mean, at 60 and 120 from 93 to 97 %."""
    repeats, block = 2000, 250
    rng = np.random.default_rng(20)
    lengths_RN = lengths((repeats, 120), rng)
    sums_RN = token_sums(lengths_RN, rng)
    effects_RN = np.random.default_rng(21).standard_normal((repeats, 120))
    coverage: dict[tuple[float, int], float] = {}
    misses_above: dict[tuple[float, int], float] = {}
    for sigma in (0.5, 0.8):
        values_RN = np.exp(sigma * effects_RN - sigma**2 / 2) * sums_RN
        for clusters in (30, 60, 120):
            held = above = 0
            for start in range(0, repeats, block):
                part = np.s_[start : start + block, :clusters]
                # A seed for each block: one set of draws for all repeats would not average out.
                _, _, low, high = ratio_intervals(values_RN[part], lengths_RN[part], seed=start, resamples=1000)
                held += int(np.count_nonzero((low <= 1) & (high >= 1)))
                above += int(np.count_nonzero(low > 1))
            coverage[sigma, clusters] = held / repeats
            misses_above[sigma, clusters] = above / repeats
    for (sigma, clusters), covered in coverage.items():
        lowest, highest = (0.915, 0.97) if clusters == 30 else (0.93, 0.97)
        assert lowest <= covered <= highest, (sigma, clusters, coverage)
    # A lower limit above the truth would call damage worse than it is: that error stays below its nominal 2.5 %.
    assert max(misses_above.values()) <= 0.025, misses_above


# --- the formulas


def test_the_interval_is_the_studentized_bootstrap_computed_from_drawn_documents() -> None:
    document, values = documents(25, seed=3)
    found = Clusters(document, "documents").means([values], resamples=100_000)[0]
    sums_N = np.bincount(document, weights=values)
    counts_N = np.bincount(document).astype(float)

    def ratio(chosen_BN: NDArray[np.int64]) -> tuple[Array, Array]:
        sums_BN, counts_BN = sums_N[chosen_BN], counts_N[chosen_BN]
        mean_B = sums_BN.sum(axis=1) / counts_BN.sum(axis=1)
        residuals_BN = sums_BN - mean_B[:, None] * counts_BN
        return mean_B, np.sqrt(25 * np.var(residuals_BN, axis=1, ddof=1)) / counts_BN.sum(axis=1)

    (mean,), (error,) = ratio(np.arange(25)[None])
    mean_B, error_B = ratio(np.random.default_rng(99).integers(0, 25, (100_000, 25)))
    t_B = (mean_B - mean) / error_B
    skewness = float(stats.skew(sums_N - mean * counts_N))
    tail = (0.05 - min(0.02, 0.3 * skewness**2 / 25)) / 2
    assert found.mean == pytest.approx(mean, rel=1e-12)
    assert found.standard_error == pytest.approx(error, rel=1e-10)
    low, high = interval(found)
    assert low == pytest.approx(mean - np.quantile(t_B, 1 - tail) * error, abs=0.04 * error)
    assert high == pytest.approx(mean - np.quantile(t_B, tail) * error, abs=0.08 * error)


def test_with_one_token_a_cluster_the_standard_error_is_the_plain_one() -> None:
    values = np.random.default_rng(1).normal(5, 2, 200)
    found = estimate(values, np.arange(200))
    assert found.mean == pytest.approx(values.mean(), rel=1e-12)
    assert found.standard_error == pytest.approx(float(stats.sem(values)), rel=1e-9)
    low, high = interval(found)
    expected = stats.t.interval(0.95, 199, loc=values.mean(), scale=stats.sem(values))
    assert (low, high) == pytest.approx(expected, abs=0.1 * float(stats.sem(values)))


def test_two_to_five_clusters_get_students_t() -> None:
    values = np.array([1.0, 2.0, 4.0, 9.0])
    for count in (2, 3, 4):
        found = estimate(values[:count], np.arange(count))
        scale = float(stats.sem(values[:count]))
        expected = stats.t.interval(0.95, count - 1, loc=values[:count].mean(), scale=scale)
        assert interval(found) == pytest.approx(expected, rel=1e-9)


def test_a_single_cluster_has_no_interval() -> None:
    found = estimate(np.array([1.0, 3.0]), np.zeros(2, dtype=np.int64))
    assert found.mean == 2.0
    assert found.interval is None
    assert found.standard_error is None
    assert found.within(0, 1) == found
    assert found.mapped(np.exp).interval is None


@pytest.mark.parametrize("value", [0.0, 0.1, -3.7, 1e-12, 1e200])
@pytest.mark.parametrize("clusters", [2, 30])
def test_equal_values_have_an_interval_of_no_width(value: float, clusters: int) -> None:
    document, _ = documents(clusters)
    found = estimate(np.full(document.size, value), document)
    assert found.mean == pytest.approx(value, rel=1e-12)
    assert interval(found) == (found.mean, found.mean)
    assert found.standard_error == 0.0


def test_one_event_in_one_document_gets_the_limit_of_a_rare_event() -> None:
    document = np.repeat(np.arange(60), 100)
    values = np.zeros(6000)
    values[7] = 1.0
    found = estimate(values, document)
    low, high = interval(found.within(0.0, 1.0))
    assert low == 0.0
    assert high * 6000 == pytest.approx(1 + T_LIMIT)
    assert high * 6000 > stats.chi2.ppf(0.975, 4) / 2, "not below the exact Poisson limit"


def test_documents_are_the_clusters_unless_they_are_too_few() -> None:
    document = np.repeat(np.arange(FEWEST_CLUSTERS), 40)
    window = np.arange(document.size) // 10
    enough = Clusters.of(document, window)
    assert (enough.by, len(enough)) == ("documents", FEWEST_CLUSTERS)
    few = Clusters.of(document[40:], window[40:])
    assert (few.by, len(few)) == ("windows", 4 * (FEWEST_CLUSTERS - 1))


def test_several_quantities_share_their_draws_and_equal_the_single_ones() -> None:
    document, values = documents(20, seed=6)
    other = values**2
    both = Clusters(document, "documents").means([values, other, values])
    for one in (both[0], both[2]):  # sums of several columns may differ in the last digit
        assert one.mean == pytest.approx(values.mean(), rel=1e-12)
        assert interval(one) == pytest.approx(interval(estimate(values, document)), rel=1e-12)
    assert both[1].mean == pytest.approx(other.mean(), rel=1e-12)
    assert Clusters(document, "documents").means([]) == []


def test_many_clusters_are_drawn_in_blocks_without_a_seam() -> None:
    rng = np.random.default_rng(8)
    values = rng.gamma(1.0, size=3000)
    found = Clusters(np.arange(3000), "documents").means([values], resamples=800)[0]
    low, high = interval(found)
    expected = stats.t.interval(0.95, 2999, loc=values.mean(), scale=stats.sem(values))
    assert (low, high) == pytest.approx(expected, abs=0.35 * float(stats.sem(values)))


# --- documents drawn within their domains


def test_the_stratified_interval_is_that_of_documents_drawn_within_their_domains() -> None:
    """Against draws of its own, formula by formula."""
    document, values = documents(24, seed=3)
    domain_D = np.repeat([0, 1, 2], [5, 7, 12])
    values = values * np.array([0.3, 1.0, 4.0])[domain_D][document]
    (found,) = Clusters(document, "documents", domain_D[document]).means([values], resamples=100_000)
    sums_N, counts_N = np.bincount(document, weights=values), np.bincount(document).astype(float)

    def ratio(chosen_BN: NDArray[np.int64]) -> tuple[Array, Array]:
        sums_BN, counts_BN = sums_N[chosen_BN], counts_N[chosen_BN]
        mean_B = sums_BN.sum(axis=1) / counts_BN.sum(axis=1)
        residuals_BN = sums_BN - mean_B[:, None] * counts_BN
        parts = [residuals_BN[:, domain_D == one] for one in range(3)]
        squares_B = sum(part.shape[1] * np.var(part, axis=1, ddof=1) for part in parts)
        return mean_B, np.sqrt(squares_B) / counts_BN.sum(axis=1)

    (mean,), (error,) = ratio(np.arange(24)[None])
    rng = np.random.default_rng(99)
    drawn = [rng.choice(np.flatnonzero(domain_D == one), (100_000, (domain_D == one).sum())) for one in range(3)]
    mean_B, error_B = ratio(np.concatenate(drawn, axis=1))
    t_B = (mean_B - mean) / error_B
    residuals_N = sums_N - mean * counts_N
    within_N = residuals_N - np.array([residuals_N[domain_D == one].mean() for one in range(3)])[domain_D]
    tail = (0.05 - min(0.02, 0.3 * float(stats.skew(within_N)) ** 2 / 24)) / 2
    assert found.mean == pytest.approx(mean, rel=1e-12)
    assert found.standard_error == pytest.approx(error, rel=1e-10)
    low, high = interval(found)
    assert low == pytest.approx(mean - np.quantile(t_B, 1 - tail) * error, abs=0.04 * error)
    assert high == pytest.approx(mean - np.quantile(t_B, tail) * error, abs=0.08 * error)


@pytest.mark.parametrize("each", [3, 8])
def test_of_ten_fixed_domains_intervals_cover_as_often_as_they_say_and_are_narrower(each: int) -> None:
    """Domains differ tenfold. The texts that follow have the same ones, and their mean is 1."""
    domain_N = np.tile(np.arange(10), each)
    level_N = np.geomspace(0.3, 3, 10)[domain_N]
    level_N /= level_N.mean()
    rng = np.random.default_rng(5)
    effects_RN = np.exp(0.4 * rng.standard_normal((2000, 10 * each)) - 0.08) * level_N
    lengths_1N = np.full((1, 10 * each), 100.0)
    held, widths = {}, {}
    for drawn, domains in (("within", domain_N), ("as one", None)):
        found = [
            ratio_intervals(100 * part_RN, lengths_1N, None, domains, seed=seed, resamples=1000)
            for seed, part_RN in enumerate(np.split(effects_RN, 8))
        ]
        low, high = (np.concatenate([part[limit] for part in found]) for limit in (2, 3))
        held[drawn], widths[drawn] = float(np.mean((low <= 1) & (high >= 1))), float(np.mean(high - low))
    assert 0.93 <= held["within"] <= 0.97
    assert held["as one"] > 0.99
    assert widths["within"] < {3: 0.8, 8: 0.65}[each] * widths["as one"]


def test_domains_of_few_documents_are_drawn_together() -> None:
    names = np.array(["a", "b", "b", "b", "b", "c", "d", "e", "e", "f", "f", "f"])
    assert [part.tolist() for part in strata_of(names)] == [[0, 5, 6, 7, 8], [9, 10, 11], [1, 2, 3, 4]]
    assert [part.tolist() for part in strata_of(np.array(["a", "b"]))] == [[0, 1]]
    assert [part.tolist() for part in strata_of(np.array(["a", "b", "b", "b"]))] == [[0, 1, 2, 3]]
    document, values = documents(24)
    alone = Clusters(document, "documents", document).means([values])[0]
    assert alone.standard_error is not None
    assert alone.standard_error > 0


@pytest.mark.parametrize(("domains", "each"), [(7, 1), (10, 1), (5, 2)])
def test_an_outlier_among_small_domains_widens_the_interval_as_one_among_documents_does(
    domains: int, each: int
) -> None:
    document = np.repeat(np.arange(domains * each), 100)
    values = np.where(document == 0, 10.0, 0.1)
    named = Clusters(document, "documents", document // each).means([values])[0]
    plain = Clusters(document, "documents").means([values])[0]
    assert interval(named) == pytest.approx(interval(plain), rel=1e-9)


def test_windows_and_documents_of_one_domain_are_drawn_as_one() -> None:
    document, values = documents(24)
    plain = estimate(values, document)
    named = Clusters.of(document, document, np.full(document.size, "prose")).means([values])[0]
    assert interval(named) == pytest.approx(interval(plain), rel=1e-9)
    few = document < FEWEST_CLUSTERS - 1
    window = np.arange(few.sum()) // 4
    by_window = Clusters.of(document[few], window, document[few] % 2).means([values[few]])[0]
    assert interval(by_window) == pytest.approx(interval(estimate(values[few], window)), rel=1e-9)


# --- properties


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 30), st.integers(0, 2**32 - 1))
def test_neither_the_order_of_documents_and_tokens_nor_the_names_of_domains_matter(count: int, seed: int) -> None:
    document, values = documents(count, seed=seed)
    rng = np.random.default_rng(seed)
    shuffle = rng.permutation(document.size)
    names = rng.permutation(count)
    domain = document % 4
    first = Clusters(document, "documents", domain).means([values])[0]
    second = Clusters(names[document[shuffle]], "documents", 9 - domain[shuffle]).means([values[shuffle]])[0]
    assert second.mean == pytest.approx(first.mean, rel=1e-12)
    assert interval(second) == pytest.approx(interval(first), rel=1e-9, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(2, 30),
    st.integers(0, 2**32 - 1),
    st.floats(1e-12, 1e12),
    st.floats(-100, 100),
)
def test_units_and_origin_carry_over(count: int, seed: int, factor: float, shift: float) -> None:
    document, values = documents(count, seed=seed)
    plain, scaled, shifted = Clusters(document, "documents").means([values, factor * values, values + shift])
    assert interval(scaled) == pytest.approx([factor * limit for limit in interval(plain)], rel=1e-9)
    assert shifted.mean == pytest.approx(plain.mean + shift, rel=1e-9, abs=1e-9)
    assert interval(shifted) == pytest.approx([limit + shift for limit in interval(plain)], rel=1e-7, abs=1e-7)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.floats(-1e6, 1e6)), min_size=1, max_size=80))
def test_an_interval_always_holds_its_mean_and_maps_with_it(pairs: list[tuple[int, float]]) -> None:
    labels, values = np.array([label for label, _ in pairs]), np.array([value for _, value in pairs])
    found = Clusters(labels, "windows").means([values], resamples=200)[0]
    if found.interval is None:
        assert len(set(labels.tolist())) == 1
        return
    assert found.interval[0] <= found.mean <= found.interval[1]
    cut = found.within(-10, 10)
    assert interval(cut)[0] <= cut.mean <= interval(cut)[1]
    mapped = found.mapped(np.arctan)
    assert interval(mapped) == (np.arctan(found.interval[0]), np.arctan(found.interval[1]))
    assert mapped.standard_error is None
