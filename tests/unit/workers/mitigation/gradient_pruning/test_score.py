import torch

from workers.mitigation.gradient_pruning.score import Prices, fisher_diagonal, price
from workers.mitigation.gradients import LayerGradients


def gradients(seed, scale=1.0, *, squares=True):
    draws = torch.Generator().manual_seed(seed)
    return LayerGradients(
        squares_OI=scale * torch.rand(3, 5, generator=draws) if squares else None,
        outputs_O=scale * torch.rand(3, generator=draws),
        outputs_OO=None,
        inputs_I=torch.rand(5, generator=draws),
    )


def test_a_price_is_half_the_squared_weight_times_the_mean_of_both_estimates():
    of = gradients(0)
    weight = torch.randn(3, 5, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    found = price(weight, fisher_diagonal(of))
    for o in range(3):
        for i in range(5):
            fisher = (float(of.outputs_O[o]) * float(of.inputs_I[i]) + float(of.squares_OI[o, i])) / 2
            torch.testing.assert_close(float(found[o, i]), float(weight[o, i]) ** 2 * fisher / 2, rtol=1e-5, atol=1e-9)


def test_a_later_pass_is_scaled_to_the_first_ones_total_over_all_modules_and_averaged():
    weights = {"a": torch.ones(3, 5), "b": 2 * torch.ones(3, 5)}
    first = {"a": gradients(0), "b": gradients(1)}
    second = {"a": gradients(2, 7.0), "b": gradients(3, 7.0)}

    def diagonals(found):
        return {name: fisher_diagonal(of).clone() for name, of in found.items()}

    one, two = diagonals(first), diagonals(second)
    totals = [sum(float((weights[n] ** 2 * d[n]).sum()) for n in weights) for d in (one, two)]
    prices = Prices(weights.__getitem__)
    prices.add(first)
    prices.add(second)
    for name, weight in weights.items():
        expected = (one[name] + two[name] * totals[0] / totals[1]) / 2
        torch.testing.assert_close(prices.of(name), weight**2 * expected / 2)


def test_a_candidate_that_does_not_differ_adds_nothing_that_is_no_number():
    prices = Prices(lambda _: torch.ones(3, 5))
    prices.add({"a": gradients(0)})
    prices.add({"a": gradients(0, 0.0)})
    assert bool(torch.isfinite(prices.of("a")).all())
