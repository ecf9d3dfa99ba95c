"""Differences against a regression with cluster-robust errors, and the block against plain means."""

import numpy as np
import pytest
from scipy import stats

from tests.support.values import random_values
from workers.distributions.token_values import Positions
from workers.measuring.classify import Classified
from workers.measuring.token_classes import difference, multiplicity, share_intervals, token_classes
from workers.text.token_classes.catalogue import CLASSES
from workers.text.token_classes.frequency import occurrences, rare


def corpus(seed: int, documents: int = 24) -> tuple[Positions, np.ndarray, np.ndarray]:
    """Positions, a class that some documents have more of, and KL with effects of document and class."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(20, 120, documents)
    document = np.repeat(np.arange(documents), lengths)
    mask = rng.random(document.size) < np.repeat(rng.uniform(0.05, 0.6, documents), lengths)
    kl = rng.exponential(0.2, document.size) * np.repeat(np.exp(rng.normal(0, 0.5, documents)), lengths)
    place = np.concatenate([np.arange(length) for length in lengths])
    token = rng.integers(0, 400, document.size)
    return Positions(document, document, place, place + 1, token), mask, kl


def test_the_difference_is_the_slope_of_a_regression_with_cluster_robust_error() -> None:
    positions, mask, kl = corpus(0)
    design = np.column_stack([np.ones(len(kl)), mask])
    bread = np.linalg.inv(design.T @ design)
    slope = bread @ design.T @ kl
    residual = kl - design @ slope
    documents = np.unique(positions.document)
    scores = [design[positions.document == one].T @ residual[positions.document == one] for one in documents]
    meat = np.sum([np.outer(score, score) for score in scores], axis=0) * len(documents) / (len(documents) - 1)
    error = np.sqrt((bread @ meat @ bread)[1, 1])
    found, p = difference(kl, positions, mask)
    assert found.mean == pytest.approx(slope[1], rel=1e-10)
    assert found.standard_error == pytest.approx(error, rel=1e-10)
    assert p == pytest.approx(2 * stats.t.sf(abs(slope[1]) / error, len(documents) - 1), rel=1e-9)
    assert found.interval[0] < found.mean < found.interval[1]


def test_no_difference_is_found_at_the_level_that_is_claimed() -> None:
    """Classes that say nothing: p values under 5 % in about 5 % of the texts, intervals over 0 in about 95 %."""
    p_values, covered = [], 0
    for seed in range(300):
        positions, _, kl = corpus(seed, documents=40)
        found, p = difference(kl, positions, np.random.default_rng(seed + 10_000).random(len(kl)) < 0.3)
        p_values.append(p)
        covered += found.interval[0] <= 0 <= found.interval[1]
    low, high = stats.binom.ppf([0.001, 0.999], 300, 0.05) / 300
    assert low <= np.mean(np.asarray(p_values) < 0.05) <= high + 0.02
    assert covered / 300 > 0.9


def test_interval_and_p_value_are_those_of_one_t_test() -> None:
    """Values D + N e_i have the mean D and its standard error: scipy's t test of them where both sides stand in every
    document."""
    positions, mask, kl = corpus(8)
    documents = np.unique(positions.document)
    means = [kl[side].mean() for side in (mask, ~mask)]
    values = np.full(len(documents), means[0] - means[1])
    for sign, side, mean in ((1, mask, means[0]), (-1, ~mask, means[1])):
        for number, one in enumerate(documents):
            own = kl[side & (positions.document == one)]
            values[number] += sign * len(documents) * (own.sum() - mean * own.size) / side.sum()
    test = stats.ttest_1samp(values, 0)
    found, p = difference(kl, positions, mask)
    assert p == pytest.approx(test.pvalue, rel=1e-8)
    assert found.interval == pytest.approx(tuple(test.confidence_interval()), rel=1e-8)


@pytest.mark.parametrize("documents", [3, 5, 6, 24])
def test_an_interval_excludes_zero_just_where_p_is_below_the_level(documents: int) -> None:
    """Classes in two documents or more, in fewer documents than windows and in all; some worse, some not."""
    told = set()
    for seed in range(60):
        positions, mask, kl = corpus(seed, documents=documents)
        inside = mask & (positions.document < 2 + seed % (documents - 1))
        found, p = difference(kl + inside * (seed % 4) * 0.05, positions, inside)
        low, high = found.interval
        assert (not low <= 0 <= high) == (p < 0.05)
        told.add(p < 0.05)
    assert told == {True, False}


def test_the_error_of_a_class_of_few_tokens_is_at_least_that_of_as_many_of_all() -> None:
    """Ten tokens of equal KL among skewed ones: they do not vary themselves, ten of all positions do."""
    positions, _, kl = corpus(9)
    alike = np.zeros(len(kl), dtype=np.bool_)
    alike[[np.flatnonzero(positions.document == document)[0] for document in range(10)]] = True
    kl = np.where(alike, 0.05, kl)
    left = np.concatenate([kl[positions.document == one] - kl[positions.document == one].mean() for one in range(24)])
    error = np.sqrt((left**2).sum() / (len(kl) - 24) * (1 / 10 + 1 / (len(kl) - 10)))
    found, p = difference(kl, positions, alike)
    assert found.standard_error == pytest.approx(error)
    assert found.interval == pytest.approx(stats.t.interval(0.95, 9, found.mean, error))
    assert p == pytest.approx(2 * stats.t.sf(abs(found.mean) / error, 9))


@pytest.mark.parametrize("spread", [1.0, 2.0])
@pytest.mark.parametrize(("documents", "tokens"), [(12, 2), (24, 4), (32, 8)])
def test_a_small_class_is_not_called_smaller_for_want_of_large_values(
    documents: int, tokens: int, spread: float
) -> None:
    """Of classes that say nothing, in skewed KL; by their own spread alone up to every third would be called so."""
    rng = np.random.default_rng(7)
    document = np.repeat(np.arange(32), 128)
    positions = Positions(document, document, document, document, document)
    called = 0
    for _ in range(200):
        kl = np.exp(spread * rng.standard_normal((32, 128)) + 0.5 * rng.standard_normal((32, 1))).ravel()
        mask = np.zeros((32, 128), dtype=np.bool_)
        for one in rng.choice(32, documents, replace=False):
            mask[one, rng.choice(128, tokens, replace=False)] = True
        _, p = difference(kl, positions, mask.ravel())
        called += p < 0.05
    assert called <= 10


def test_of_a_class_in_one_document_alone_nothing_is_claimed() -> None:
    positions, mask, kl = corpus(5)
    for side in (mask & (positions.document == 3), ~(mask & (positions.document == 3))):
        found, p = difference(kl, positions, side)
        assert found.mean == pytest.approx(kl[side].mean() - kl[~side].mean())
        assert (found.interval, found.standard_error, p) == (None, None, None)


def test_shares_of_the_loss_are_covered_as_their_intervals_claim() -> None:
    """A class that has 30 % of the tokens of documents on average, whatever their loss, has 30 % of the loss."""
    covered = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        positions, _, kl = corpus(seed, documents=40)
        mask = rng.random(len(kl)) < rng.beta(3, 7, 40)[positions.document]
        [interval] = share_intervals(kl, positions, [mask])
        share = kl[mask].sum() / kl.sum()
        assert 0 <= interval[0] < share < interval[1] <= 1
        covered += interval[0] <= 0.3 <= interval[1]
    assert covered / 200 > 0.89


def test_shares_without_loss_or_with_the_loss_of_one_document_have_no_interval() -> None:
    positions, mask, kl = corpus(7)
    assert share_intervals(np.zeros(len(kl)), positions, [mask]) == [None]
    assert share_intervals(np.where(positions.document == 2, kl, 0.0), positions, [mask]) == [None]
    assert share_intervals(kl, positions, []) == []


def test_values_that_do_not_vary_are_sure() -> None:
    positions, mask, _ = corpus(2)
    told = difference(np.where(mask, 2.0, 1.0), positions, mask)[1]
    assert told is not None and told < 1e-20
    for value in (0.0, 0.1, 0.3, 0.7):  # sums of most of them are rounded
        same, p = difference(np.full(len(mask), value), positions, mask)
        assert (same.mean, same.interval, p) == (0, (0, 0), 1)


def test_the_block_against_plain_means() -> None:
    positions, mask, _ = corpus(3)
    values = random_values(len(mask), seed=3)
    counts = occurrences([positions.token_id.astype(np.int32)], 400)[positions.token_id]
    masks = {one.name: np.zeros_like(mask) for one in CLASSES} | {"numbers": mask, "rare": rare(counts)}
    found = token_classes(values, positions, Classified(masks))
    assert [one.name for one in found.classes] == ["numbers", "rare"]
    assert len(found.absent) == len(CLASSES) - 2
    numbers = found.classes[0]
    assert numbers.tokens == mask.sum()
    assert numbers.kl.mean == pytest.approx(values.kl[mask].mean(dtype=np.float64))
    assert numbers.tv.mean == pytest.approx(values.tv[mask].mean(dtype=np.float64))
    assert numbers.top1_agreement.mean == pytest.approx(values.top1_agree[mask].mean())
    ratio = np.exp((values.logp_reference[mask] - values.logp_candidate[mask]).mean(dtype=np.float64))
    assert numbers.perplexity_ratio.mean == pytest.approx(ratio)
    assert numbers.share == pytest.approx(mask.mean())
    assert numbers.share_of_kl == pytest.approx(values.kl[mask].sum() / values.kl.sum(), rel=1e-5)
    assert numbers.share_of_kl_ci[0] < numbers.share_of_kl < numbers.share_of_kl_ci[1]
    gap = values.kl[mask].mean(dtype=np.float64) - values.kl[~mask].mean(dtype=np.float64)
    assert numbers.difference.mean == pytest.approx(gap)
    assert found.none.tokens == (~mask & ~masks["rare"]).sum()
    assert "2 classes" in found.multiplicity


def test_only_classes_that_have_an_interval_and_a_p_value_count_for_what_chance_does() -> None:
    """Of three classes one stands in a single document: two p values are adjusted, of two intervals 0.1 miss."""
    positions, mask, _ = corpus(3)
    values = random_values(len(mask), seed=3)
    masks = {one.name: np.zeros_like(mask) for one in CLASSES}
    masks |= {"numbers": mask, "names": ~mask, "tool_name": mask & (positions.document == 4)}
    found = token_classes(values, positions, Classified(masks))
    assert [one.name for one in found.classes if one.p_value is None] == ["tool_name"]
    assert "of 2 such about 0.1 miss by chance" in found.multiplicity
    assert "adjusted over 2 classes (Holm)" in found.multiplicity
    assert "by chance" not in multiplicity(2, ["Code", "Names"])
