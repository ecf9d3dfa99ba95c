"""What the simulation of intervals draws has the mean that it is held to, and its percentile interval is scipy's."""

import numpy as np
import pytest
from scipy import stats

from tests.bench import intervals
from tests.bench.intervals import SHAPES


@pytest.mark.parametrize("shape", SHAPES)
def test_values_have_the_mean_one_per_token(shape: str) -> None:
    """Over 40,000 documents; the standard error is about 1 % at most."""
    drawn = [
        (sums.sum(), len(sums) * lengths.sum()) for _, sums, lengths in intervals.texts(SHAPES[shape], 40, 1000, 3)
    ]
    total, tokens = np.sum(drawn, axis=0)
    assert total / tokens == pytest.approx(1, abs=0.04)


def test_windows_of_a_document_share_its_effect() -> None:
    """With an effect of 0 or 2 all windows of a document are 0, or none is."""
    (block,) = intervals.texts(
        lambda rng, shape: np.asarray(rng.integers(0, 2, shape) * 2, dtype=np.float64), 5, 50, 3, windows=4
    )
    windows = (block[1] > 0).reshape(50, 5, 4)
    assert set(np.unique(windows.sum(axis=2))) == {0, 4}


def test_the_percentile_interval_of_documents_of_one_length_is_that_of_their_means() -> None:
    means = np.random.default_rng(5).lognormal(0, 1, 40)
    low, high = intervals.percentile_limits(means[None] * 50, np.full((1, 40), 50.0), seed=1)
    scipys = stats.bootstrap((means,), np.mean, method="percentile", n_resamples=20_000, rng=1).confidence_interval
    np.testing.assert_allclose([low[0], high[0]], [scipys.low, scipys.high], rtol=0.02)
