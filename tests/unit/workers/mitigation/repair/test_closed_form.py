import itertools

import pytest
import torch

from app.contracts.errors import ErrorCode, HemostatError
from workers.mitigation.repair.closed_form import Metric, root_of, solve


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moment(inputs, tokens=400, seed=1):
    x_TI = draw(tokens, inputs, seed=seed) * torch.logspace(-1, 1, inputs, dtype=torch.float64)
    return x_TI.T @ x_TI / tokens


def gradients(outputs, seed):
    """Moments of gradients that go together."""
    mix = torch.eye(outputs, dtype=torch.float64) * outputs**0.5 + draw(outputs, outputs, seed=seed + 1)
    delta_TO = draw(300, outputs, seed=seed) @ mix
    return delta_TO.T @ delta_TO / 300


def shrunk(gradient_OO):
    """What the solution counts with: three tenths taken off beside the diagonal."""
    return gradient_OO * torch.where(torch.eye(len(gradient_OO)) > 0, 1.0, 0.7)


def ridged(moment, share):
    """With a share of the mean power added to each channel's."""
    return moment + share * moment.diagonal().mean() * torch.eye(len(moment), dtype=torch.float64)


def loss(error, factors, moment_II, gradient_OO):
    left = error - factors.product().double()
    return float(torch.trace(shrunk(gradient_OO) @ left @ moment_II @ left.T)) / 2


@pytest.mark.parametrize(("outputs", "inputs"), [(12, 20), (20, 12), (16, 16)])
def test_without_metrics_it_is_the_truncated_svd_of_the_error(outputs, inputs):
    error = draw(outputs, inputs)
    left, values, right = torch.linalg.svd(error)
    for rank in (1, 3, 7):
        factors = solve(error, torch.eye(inputs), most=rank)
        expected = left[:, :rank] @ torch.diag(values[:rank]) @ right[:rank]
        assert factors.rank == rank
        torch.testing.assert_close(factors.product().double(), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(factors.gains_R.double(), values[:rank] ** 2 / 2, rtol=1e-3, atol=1e-5)


def test_each_direction_saves_what_it_says():
    error, moment_II, gradient_OO = draw(10, 16), moment(16), gradients(10, 7)
    factors = solve(error, moment_II, gradient_OO)
    losses = [loss(error, factors.first(rank), moment_II, gradient_OO) for rank in range(11)]
    saved = [before - after for before, after in itertools.pairwise(losses)]
    torch.testing.assert_close(torch.tensor(saved), factors.gains_R, rtol=0.02, atol=1e-3)
    assert losses[10] < 1e-6 * losses[0]


@pytest.mark.parametrize("by_channel", [False, True])
@pytest.mark.parametrize("shape", [(10, 16), (16, 10)])
def test_what_is_left_is_what_the_trace_says(shape, by_channel):
    error, moment_II, gradient_OO = draw(*shape), moment(shape[1]), gradients(shape[0], 7)
    counted_OO = ridged(gradient_OO.diagonal().diag() if by_channel else shrunk(gradient_OO), 1e-3)
    counted_II = ridged(moment_II, 1e-4)
    metric = Metric.of(moment_II, gradient_OO.diagonal() if by_channel else gradient_OO, shape[0])
    for most in (0, 2, 5):
        factors, left = metric.divide(error, most=most)
        rest = error - factors.product().double()
        assert left == pytest.approx(float(torch.trace(counted_OO @ rest @ counted_II @ rest.T)) / 2, rel=1e-5)
    assert metric.divide(error)[1] == pytest.approx(0.0, abs=1e-9 * metric.divide(error, most=0)[1])
    assert metric.divide(torch.zeros(shape), most=2)[1] == 0.0


def test_no_other_product_of_that_rank_leaves_less():
    """The oracles: descent from many starts, and the solutions of the unweighted and the half-weighted problem."""
    error, gradient_OO = draw(6, 9), gradients(6, 2)
    moment_II = moment(9)
    best = solve(error, moment_II, gradient_OO, most=2)
    by_channel = solve(error, moment_II, gradient_OO.diagonal().diag(), most=2)
    reached = loss(error, best, moment_II, gradient_OO)
    for rival in (solve(error, torch.eye(9), most=2), solve(error, moment_II, most=2), by_channel):
        assert reached < loss(error, rival, moment_II, gradient_OO)
    for seed in range(5):
        up = draw(6, 2, seed=10 + seed).requires_grad_(True)
        down = draw(2, 9, seed=20 + seed).requires_grad_(True)
        optimizer = torch.optim.LBFGS([up, down], max_iter=300, line_search_fn="strong_wolfe")

        def closure(up=up, down=down, of=optimizer):
            of.zero_grad()
            left = error - up @ down
            value = torch.trace(shrunk(gradient_OO) @ left @ moment_II @ left.T) / 2
            value.backward()
            return float(value.detach())

        optimizer.step(closure)
        assert closure() > reached * (1 - 2e-3)


def test_moments_by_channel_are_those_of_a_diagonal_matrix():
    error, by_channel_O = draw(6, 9), draw(6, seed=2).square() + 0.05
    one, other = solve(error, moment(9), by_channel_O, most=3), solve(error, moment(9), by_channel_O.diag(), most=3)
    torch.testing.assert_close(one.product(), other.product())
    torch.testing.assert_close(one.gains_R, other.gains_R)


def test_inputs_that_never_occur_do_not_break_the_root():
    x_TI = draw(3, 8)  # fewer tokens than inputs
    root = root_of(x_TI.T @ x_TI, ridge=1e-6)
    torch.testing.assert_close(root @ root.T, x_TI.T @ x_TI, rtol=1e-4, atol=1e-4)
    assert bool(torch.isfinite(root_of(torch.zeros(4, 4))).all())
    assert solve(draw(5, 8), torch.zeros(8, 8), torch.zeros(5, 5), most=2).rank == 2


def test_a_moment_that_is_not_finite_is_refused():
    broken = moment(6)
    broken[2, 2] = float("nan")
    with pytest.raises(HemostatError) as caught:
        solve(draw(4, 6), broken)
    assert caught.value.code == ErrorCode.ACTIVATIONS_NOT_FINITE
    with pytest.raises(HemostatError) as caught:
        solve(draw(6, 4), moment(4), broken)
    assert caught.value.code == ErrorCode.ACTIVATIONS_NOT_FINITE
    with pytest.raises(HemostatError) as caught:
        solve(draw(6, 4), moment(4), broken.diagonal())
    assert caught.value.code == ErrorCode.ACTIVATIONS_NOT_FINITE
