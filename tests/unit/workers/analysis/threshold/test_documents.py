"""Resampling documents jointly: the values themselves, coverage by simulation, and what is refused."""

import numpy as np
import pytest

from tests.support.knee_documents import simulated
from tests.support.knees import SCENARIOS
from workers.analysis.threshold.documents import DocumentLosses, document_interval

SCENARIO = SCENARIOS["12 points, 0.03, k2 = 0"]


def test_values_are_pooled_over_tokens() -> None:
    sums, tokens = np.array([[10.0] * 6, [20.0] * 5 + [80.0]]), np.array([10] * 5 + [50])
    losses = DocumentLosses.of(sums, tokens)
    assert losses.logs() == pytest.approx([60 / 100, 180 / 100])
    assert DocumentLosses.of(sums, tokens, "divergence").logs() == pytest.approx(np.log([0.6, 1.8]))
    assert losses.logs(np.eye(6)[:2] * 7) == pytest.approx(np.array([[1.0, 2.0], [1.0, 2.0]]))


def test_draws_are_whole_samples_of_documents() -> None:
    drawn_BD = simulated(SCENARIO, 20, np.random.default_rng(0)).draws(seed=0, resamples=500)
    assert drawn_BD.shape == (500, 20)
    assert (drawn_BD.sum(axis=1) == 20).all()
    assert drawn_BD.mean() == pytest.approx(1)
    assert drawn_BD.var() == pytest.approx(0.95, abs=0.05)


def test_from_90_to_97_per_cent_of_intervals_hold_the_true_knee() -> None:
    rng, held = np.random.default_rng(1), []
    for index in range(150):
        losses = simulated(SCENARIO, 40, rng)
        found = document_interval(SCENARIO.s_N, losses, SCENARIO.bounds, seed=index, resamples=299)
        held.append(found.low <= SCENARIO.knee <= found.high)
    assert 0.90 <= np.mean(held) <= 0.97


def test_what_all_settings_share_costs_no_width() -> None:
    """A level that differs between documents moves the whole curve and not its knee."""
    rng = np.random.default_rng(0)
    tokens_D, level_D = np.full(40, 100), rng.normal(0, 2, 40)
    losses = DocumentLosses.of((SCENARIO.truth[:, None] + level_D) * tokens_D, tokens_D)
    found = document_interval(SCENARIO.s_N, losses, SCENARIO.bounds, resamples=299)
    assert found.high - found.low < 0.01
    noisy = document_interval(SCENARIO.s_N, simulated(SCENARIO, 40, rng), SCENARIO.bounds, resamples=299)
    assert noisy.high - noisy.low > 0.02


@pytest.mark.parametrize(
    ("sums", "tokens", "said"),
    [
        (np.ones((7, 5)), np.ones(5), "at least 6"),
        (np.ones((7, 6)), np.ones(7), "are needed"),
        (np.ones(6), np.ones(6), "are needed"),
        (np.ones((7, 6)), np.array([1, 1, 1, 1, 1, 0]), "has tokens"),
        (np.full((7, 6), np.nan), np.ones(6), "finite"),
    ],
)
def test_losses_that_do_not_fit_are_refused(sums: np.ndarray, tokens: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        DocumentLosses.of(sums, tokens)


def test_settings_that_do_not_fit_are_refused() -> None:
    losses = simulated(SCENARIO, 10, np.random.default_rng(0))
    with pytest.raises(ValueError, match="11 settings and losses of 12"):
        document_interval(SCENARIO.s_N[1:], losses, SCENARIO.bounds)
    with pytest.raises(ValueError, match="rising order"):
        document_interval(SCENARIO.s_N[::-1], losses, SCENARIO.bounds)
