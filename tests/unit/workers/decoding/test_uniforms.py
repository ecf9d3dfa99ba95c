"""Common random numbers: the same whoever asks, uniform, and turned into tokens by the inverse of the distribution."""

import numpy as np
import pytest
import torch
from scipy import stats

from workers.decoding.uniforms import inverse_cdf, uniforms


def test_a_uniform_belongs_to_seed_prompt_and_step() -> None:
    one = uniforms(7, 3, 50)

    assert np.array_equal(uniforms(7, 3, 200)[:50], one)
    assert not np.array_equal(uniforms(7, 4, 50), one)
    assert not np.array_equal(uniforms(8, 3, 50), one)


def test_uniforms_are_uniform_and_prompts_independent() -> None:
    drawn = np.stack([uniforms(0, prompt, 400) for prompt in range(50)])

    assert stats.kstest(drawn.ravel(), "uniform").pvalue > 0.01
    assert abs(stats.pearsonr(drawn[:-1].ravel(), drawn[1:].ravel()).statistic) < 0.03


@pytest.mark.parametrize(
    ("u", "token"), [(0.0, 1), (0.2499, 1), (0.25, 3), (0.7499, 3), (0.75, 4), (np.nextafter(1, 0), 4)]
)
def test_the_first_token_whose_cumulative_probability_exceeds_u_is_taken(u: float, token: int) -> None:
    p = torch.tensor([[0.0, 0.25, 0.0, 0.5, 0.25, 0.0]], dtype=torch.float64)

    assert inverse_cdf(p, np.array([u])) == [token]
    assert inverse_cdf(3 * p, np.array([u])) == [token]


def test_frequencies_are_the_probabilities() -> None:
    p = np.array([0.05, 0.0, 0.6, 0.15, 0.2])
    u = np.concatenate([uniforms(1, prompt, 100) for prompt in range(100)])

    drawn = inverse_cdf(torch.tensor(p).expand(len(u), 5), u)

    counts = np.bincount(drawn, minlength=5)
    assert counts[1] == 0
    assert stats.chisquare(counts[p > 0], len(u) * p[p > 0]).pvalue > 0.01


def test_a_token_without_probability_is_not_taken_where_sums_round() -> None:
    p = torch.zeros(1, 1000, dtype=torch.float32)
    p[0, :900] = 1e-3 / 0.9

    assert inverse_cdf(p, np.array([np.nextafter(1, 0)])) == [899]
