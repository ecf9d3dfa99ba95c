import pytest
import torch
from torch import nn

from tests.support.pruning import half_pruned
from workers.mitigation.gradient_pruning.kept import KeptWeights
from workers.mitigation.reconstruction import metric_root, orders, reconstruct, schedule


def test_the_root_is_that_of_the_blend():
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    s = x.T @ x / 40
    root = metric_root(s, plain=0.25)
    torch.testing.assert_close(root @ root.T, 0.75 * s / s.diagonal().mean() + 0.25 * torch.eye(6))


def test_a_moment_of_nothing_is_the_plain_error():
    torch.testing.assert_close(metric_root(torch.zeros(3, 3), plain=1.0), torch.eye(3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_comes_near_the_masked_least_squares_and_keeps_the_mask(dtype):
    draws = torch.Generator().manual_seed(1)
    x = torch.randn(6, 32, 16, generator=draws) @ torch.randn(16, 16, generator=draws)
    dense = torch.randn(8, 16, generator=draws)
    one = half_pruned(dtype=dtype)
    mask = one.weight != 0
    with torch.no_grad():
        one.weight.copy_(dense * mask)
    x, wanted = x.to(dtype), (x @ dense.T).to(dtype)
    flat, kept = x.reshape(-1, 16).double(), mask[0]
    solved = torch.linalg.lstsq(flat[:, kept], wanted.reshape(-1, 8).double()).solution.T
    best = float((flat[:, kept] @ solved.T - wanted.reshape(-1, 8).double()).square().mean())

    def error():
        return float((one(x).double() - wanted.double()).square().mean())

    before = error()
    reconstruct(
        one,
        KeptWeights({"w": one}, rate=0.05),
        lambda chosen: (x[chosen], wanted[chosen]),
        torch.eye(8),
        list(orders(6, 2, 120, 0)),
        size_of=lambda _, out: out,
    )
    assert best <= error() < best + 0.15 * (before - best)
    assert torch.equal(one.weight != 0, mask)
    assert not one.weight.requires_grad


def test_errors_that_count_more_are_made_smaller():
    draws = torch.Generator().manual_seed(1)
    x = torch.randn(4, 32, 16, generator=draws) @ torch.randn(16, 16, generator=draws)
    mix = torch.randn(8, 8, generator=draws)
    x_out = x @ torch.randn(8, 16, generator=draws).T
    errors = []
    for metric in (torch.eye(8), torch.diag(torch.tensor([30.0] + [0.01] * 7))):
        one = half_pruned()
        inner = nn.Linear(8, 8, bias=False).requires_grad_(False)
        inner.weight.copy_(mix)

        def call(hidden, one=one, inner=inner):
            return inner(torch.tanh(one(hidden)))

        reconstruct(
            call,
            KeptWeights({"w": one}, rate=0.05),
            lambda chosen: (x[chosen], x_out[chosen]),
            metric,
            list(orders(4, 2, 60, 0)),
            size_of=lambda _, out: out,
        )
        errors.append(float((call(x) - x_out)[..., 0].square().mean()))
    assert errors[1] < errors[0]


def test_every_epoch_has_each_window_once_in_an_order_of_the_seed():
    plan = list(orders(5, 2, 3, 7))
    for epoch in range(3):
        assert sorted(torch.cat(plan[3 * epoch : 3 * epoch + 3]).tolist()) == list(range(5))
    assert all(torch.equal(a, b) for a, b in zip(plan, orders(5, 2, 3, 7), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(plan, orders(5, 2, 3, 8), strict=True))


def test_the_rate_rises_and_then_falls():
    rates = [schedule(part / 100) for part in range(101)]
    top = rates.index(max(rates))
    assert rates[0] < 0.05
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] == pytest.approx(0.1)
