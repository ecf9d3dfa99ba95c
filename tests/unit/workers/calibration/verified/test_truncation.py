"""Temperature and truncation, against transformers' own warpers and vLLM's order of them."""

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from workers.calibration.verified.truncation import Sampling, distribution


def oracle(logits_TV: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    warpers = LogitsProcessorList([TemperatureLogitsWarper(sampling.temperature)])
    if sampling.min_p > 0:
        warpers.append(MinPLogitsWarper(sampling.min_p))
    if sampling.top_k > 0:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    ids = torch.zeros(len(logits_TV), 1, dtype=torch.long)
    return warpers(ids, logits_TV.double()).softmax(1)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(temperature=0.3),
        Sampling(top_k=5),
        Sampling(top_k=1),
        Sampling(top_p=0.7),
        Sampling(top_p=0.01),
        Sampling(min_p=0.1),
        Sampling(temperature=1.7, top_k=40, top_p=0.9, min_p=0.02),
        Sampling(temperature=0.8, top_k=3),
    ],
)
def test_distributions_are_those_of_the_warpers(sampling: Sampling) -> None:
    logits_TV = 3 * torch.randn(37, 211, generator=torch.Generator().manual_seed(0))
    found_TV = distribution(logits_TV, sampling)
    assert found_TV.dtype is torch.float64
    torch.testing.assert_close(found_TV, oracle(logits_TV, sampling), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found_TV.sum(1), torch.ones(37, dtype=torch.float64))


def test_temperature_zero_takes_the_first_of_the_largest() -> None:
    logits_TV = torch.tensor([[0.0, 2.0, 2.0, 1.0], [5.0, -1.0, 0.0, 4.9]])
    assert distribution(logits_TV, Sampling(temperature=0.0)).tolist() == [[0, 1, 0, 0], [1, 0, 0, 0]]


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0), Sampling(top_k=2, top_p=0.5, min_p=0.1)])
def test_a_row_that_is_not_finite_is_seen_as_such(broken: float, sampling: Sampling) -> None:
    logits_TV = torch.zeros(2, 6)
    logits_TV[0, 3] = broken
    found_TV = distribution(logits_TV, sampling)
    assert found_TV[0].isnan().any()
    assert found_TV[1].isfinite().all()


def test_a_masked_token_is_never_drawn_and_breaks_nothing() -> None:
    found_TV = distribution(torch.tensor([[-torch.inf, 0.0, 0.0]]), Sampling())
    assert found_TV.tolist() == [[0.0, 0.5, 0.5]]


def test_a_nucleus_larger_than_what_is_looked_at_first_is_whole() -> None:
    """Nearly even distributions over more tokens than are sorted at first."""
    logits_TV = 0.1 * torch.randn(3, 5000, generator=torch.Generator().manual_seed(1))
    for sampling in (Sampling(top_p=0.9), Sampling(top_p=0.1)):
        torch.testing.assert_close(
            distribution(logits_TV, sampling), oracle(logits_TV, sampling), rtol=1e-9, atol=1e-12
        )
