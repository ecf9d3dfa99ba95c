"""Differences against a regression with cluster-robust errors, and the block against plain means."""

import numpy as np
import pytest
from scipy import stats

from tests.support.values import random_values
from workers.diagnosis.token_classes.catalogue import CLASSES
from workers.diagnosis.token_classes.classify import Classified
from workers.diagnosis.token_classes.frequency import edges, occurrences, rare
from workers.diagnosis.token_classes.slices import adjusted, difference, token_classes
from workers.distributions.token_values import Positions


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
    assert found is not None
    assert found.mean == pytest.approx(slope[1], rel=1e-10)
    assert found.standard_error == pytest.approx(error, rel=1e-10)
    assert p == pytest.approx(2 * stats.t.sf(abs(slope[1]) / error, len(documents) - 1), rel=1e-9)
    assert found.interval is not None
    assert found.interval[0] < found.mean < found.interval[1]


def test_no_difference_is_found_at_the_level_that_is_claimed() -> None:
    """Classes that say nothing: p values under 5 % in about 5 % of the texts, intervals over 0 in about 95 %."""
    p_values, covered = [], 0
    for seed in range(300):
        positions, _, kl = corpus(seed, documents=40)
        found, p = difference(kl, positions, np.random.default_rng(seed + 10_000).random(len(kl)) < 0.3)
        assert found is not None
        assert found.interval is not None
        p_values.append(p)
        covered += found.interval[0] <= 0 <= found.interval[1]
    low, high = stats.binom.ppf([0.001, 0.999], 300, 0.05) / 300
    assert low <= np.mean(np.asarray(p_values) < 0.05) <= high + 0.02
    assert covered / 300 > 0.9


def test_sides_that_are_empty_have_no_difference() -> None:
    positions, mask, kl = corpus(1)
    assert difference(kl, positions, np.zeros_like(mask)) == (None, None)
    assert difference(kl, positions, np.ones_like(mask)) == (None, None)


def test_values_that_do_not_vary_are_sure() -> None:
    positions, mask, _ = corpus(2)
    assert difference(np.where(mask, 2.0, 1.0), positions, mask)[1] == 0
    same, p = difference(np.zeros(len(mask)), positions, mask)
    assert (same is not None and same.mean, p) == (0, 1)


def test_holm_by_hand() -> None:
    assert adjusted([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert adjusted([0.9, None, 0.6]) == [1.0, None, 1.0]
    assert adjusted([]) == []


def test_the_block_against_plain_means() -> None:
    positions, mask, _ = corpus(3)
    values = random_values(len(mask), seed=3)
    counts = occurrences([positions.token_id.astype(np.int32)], 400)[positions.token_id]
    masks = {one.name: np.zeros_like(mask) for one in CLASSES} | {"numbers": mask, "rare": rare(counts)}
    found = token_classes(values, positions, Classified(masks, counts))
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
    assert numbers.difference is not None
    gap = values.kl[mask].mean(dtype=np.float64) - values.kl[~mask].mean(dtype=np.float64)
    assert numbers.difference.mean == pytest.approx(gap)
    assert found.none is not None
    assert found.none.tokens == (~mask & ~masks["rare"]).sum()
    assert sum(band.tokens for band in found.by_frequency) == len(mask)
    assert "2 classes" in found.multiplicity


def test_bands_hold_every_frequency() -> None:
    counts = np.asarray([1, 2, 3, 5000])
    assert edges(counts)[-1] == 5001
    assert edges(np.asarray([1]))[-1] == 257
    assert rare(counts).tolist() == [True, True, False, False]
