"""The divergence of two tensors of logits, against float64."""

import pytest
import torch

from workers.diagnosis.attribute.readout import divergence_of_logits


def oracle(first, second):
    logp, logq = first.double().log_softmax(-1), second.double().log_softmax(-1)
    return (logp.exp() * (logp - logq)).sum(-1)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 10.0])
def test_it_is_the_usual_divergence(scale):
    generator = torch.Generator().manual_seed(0)
    first = 3 * torch.randn(40, 500, generator=generator)
    second = first + scale * torch.randn(40, 500, generator=generator)
    torch.testing.assert_close(
        divergence_of_logits(first, second).double(), oracle(first, second), rtol=2e-4, atol=1e-9
    )


@pytest.mark.parametrize("excluded", [-80.0, -95.0, -100.0, -110.0, -1e4, -1e30])
def test_a_token_that_the_reference_all_but_excludes_breaks_nothing(excluded):
    first, second = torch.tensor([[0.0, excluded]]), torch.zeros(1, 2)
    assert divergence_of_logits(first, second).item() == pytest.approx(0.693147, rel=1e-5)
    other = divergence_of_logits(second, first).item()
    assert other == pytest.approx(-excluded / 2 - 0.693147, rel=1e-5)


def test_equal_logits_are_exactly_zero_and_nothing_is_below():
    first = torch.randn(20, 300, generator=torch.Generator().manual_seed(1))
    assert torch.equal(divergence_of_logits(first, first), torch.zeros(20))
    assert (divergence_of_logits(first, first + 1e-4 * first.flip(0)) >= 0).all()
