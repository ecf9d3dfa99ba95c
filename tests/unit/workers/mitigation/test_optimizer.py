import pytest
import torch
from torch import nn

from workers.mitigation.optimizer import Rate, adam_of
from workers.mitigation.reconstruction import at
from workers.mitigation.repair.adapter import Adapted
from workers.mitigation.repair.closed_form import Factors


def _made(up_size):
    return Adapted(
        nn.Linear(16, 8, bias=False), Factors(up_size * torch.ones(8, 3), 10 * torch.ones(3, 16), torch.zeros(3))
    )


def _step(one, rate, share):
    before = one.up_OR.detach().clone(), one.down_RI.detach().clone()
    adam = adam_of(one.factors(), rate, (0.9, 0.98))
    at(adam, share)
    for factor, sign in ((one.up_OR, 1.0), (one.down_RI, -1.0)):
        factor.grad = torch.full_like(factor, sign * 1e-3)
    adam.step()
    return one.up_OR.detach() - before[0], one.down_RI.detach() - before[1]


def test_steps_have_one_length_for_every_factor_or_are_in_proportion_to_its_size():
    # Adam's first step is the rate against the gradient's sign, whatever the gradient's size
    up, down = _step(_made(1.0), Rate(0.01), 0.5)
    torch.testing.assert_close(up, torch.full((8, 3), -0.005), rtol=1e-3, atol=0)
    torch.testing.assert_close(down, torch.full((3, 16), 0.005), rtol=1e-3, atol=0)
    up, down = _step(_made(1.0), Rate(0.01, relative=True), 0.5)
    torch.testing.assert_close(up, torch.full((8, 3), -0.005), rtol=1e-3, atol=0)
    torch.testing.assert_close(down, torch.full((3, 16), 0.05), rtol=1e-3, atol=0)


def test_a_factor_with_nothing_in_it_moves_with_absolute_steps_alone():
    up, _ = _step(_made(0.0), Rate(0.01, relative=True), 1.0)
    assert not up.any()
    up, _ = _step(_made(0.0), Rate(0.01), 1.0)
    assert float(up[0, 0]) == pytest.approx(-0.01, rel=1e-3)
