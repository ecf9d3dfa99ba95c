import pytest
import torch

from workers.distributions.head import Head
from workers.mitigation.divergence import Divergence


def head(seed, *, scale=1.0, softcap=None, bias=False):
    draws = torch.Generator().manual_seed(seed)
    return Head(
        torch.randn(50, 8, generator=draws), torch.randn(50, generator=draws) if bias else None, scale, softcap, ""
    )


def logits(of, hidden):
    raw = hidden @ of.weight_VD.double().T
    if of.bias_V is not None:
        raw = raw + of.bias_V
    if of.softcap is not None:
        raw = of.softcap * torch.tanh(raw / of.softcap)
    return raw * of.scale


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (head(0), head(0)),
        (head(0), head(1)),
        (head(0, softcap=3.0), head(0, softcap=3.0)),
        (head(0, softcap=3.0), head(1, softcap=3.0)),
        (head(0, scale=0.25), head(0, scale=0.25)),
        (head(0, scale=0.5, softcap=2.0), head(0, scale=0.5, softcap=2.0)),
        (head(0, bias=True), head(0, bias=True)),
    ],
)
def test_value_and_gradient_are_those_of_autograd_in_float64(first, second):
    draws = torch.Generator().manual_seed(3)
    reference, hidden = torch.randn(300, 8, generator=draws), torch.randn(300, 8, generator=draws)
    leaf = hidden.double().requires_grad_(True)
    p = logits(first, reference.double()).log_softmax(-1)
    q = logits(second, leaf).log_softmax(-1)
    expected = (p.exp() * (p - q)).sum()
    (slope,) = torch.autograd.grad(expected, leaf)
    value, gradient = Divergence(first, second).of(reference, hidden)
    assert value == pytest.approx(float(expected.detach()), rel=1e-4)
    torch.testing.assert_close(gradient.double(), slope, rtol=1e-3, atol=1e-4)


def test_of_itself_it_is_exactly_nothing():
    hidden = torch.randn(20, 8).bfloat16()
    of = Head(torch.randn(50, 8).bfloat16(), None, 1.0, None, "")
    value, gradient = Divergence(of, of).of(hidden, hidden)
    assert value == 0
    assert not bool(gradient.any())
