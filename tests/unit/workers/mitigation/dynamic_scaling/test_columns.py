"""Which columns are kept apart, what is left of their error, and when a budget takes them."""

import pytest
import torch

from workers.mitigation.dynamic_scaling.budget import Choice, hull
from workers.mitigation.dynamic_scaling.columns import Columns, count, most_sensitive
from workers.mitigation.dynamic_scaling.grids import Scheme
from workers.mitigation.dynamic_scaling.rounding import columns_apart, nearest, round_weight
from workers.surgery.quantize_gptq import factor

WEIGHT = torch.randn(24, 128, generator=torch.Generator().manual_seed(0))
POWER = torch.rand(128, generator=torch.Generator().manual_seed(1)) + 0.5
FISHER = torch.rand(24, generator=torch.Generator().manual_seed(2))


def with_one_huge_column():
    weight_OI = WEIGHT.clone()
    weight_OI[:, 37] *= 40
    return weight_OI


def cost(weight_OI, made_OI):
    """Σ_oj F_o H_jj (w − ŵ)² in float64."""
    gap_OI = weight_OI.double() - made_OI.double()
    return float(FISHER.double() @ gap_OI.square() @ POWER.double())


def test_those_in_which_rounding_costs_most_are_taken():
    rounded_OI = nearest(WEIGHT, Scheme(4, 32, False), POWER)
    told = [
        sum(float(FISHER[o] * POWER[j] * (WEIGHT[o, j] - rounded_OI[o, j]) ** 2) for o in range(24)) for j in range(128)
    ]
    best = sorted(sorted(range(128), key=lambda j: -told[j])[:5])
    assert most_sensitive(WEIGHT, rounded_OI, POWER, FISHER, 5).tolist() == best


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_huge_column_is_found_and_no_longer_takes_the_range_of_its_group(symmetric):
    weight_OI = with_one_huge_column()
    scheme = Scheme(4, 32, symmetric, columns=1)
    apart_K = columns_apart(weight_OI, scheme, POWER, FISHER)
    assert apart_K.tolist() == [37]
    made_OI = nearest(weight_OI, scheme, POWER, FISHER)
    without = nearest(weight_OI, Scheme(4, 32, symmetric), POWER)
    assert cost(weight_OI, made_OI) < 0.3 * cost(weight_OI, without)
    # eight bits: at most half a step of 1/127 of the largest
    most = float(weight_OI[:, 37].abs().max())
    assert float((made_OI - weight_OI)[:, 37].abs().max()) <= 0.51 * most / 127


def test_codes_have_eight_bits_and_scales_sixteen():
    made = Columns.of(WEIGHT, torch.tensor([3, 90]), torch.bfloat16)
    assert int(made.codes_OK.abs().max()) == 127
    assert torch.equal(made.scale_K, made.scale_K.bfloat16().float())
    over_OI = made.over(WEIGHT)
    assert torch.equal(over_OI[:, 3], made.weight()[:, 0])
    assert torch.equal(over_OI[:, :3], WEIGHT[:, :3])


def test_one_column_of_64_at_least_one():
    assert [count(inputs) for inputs in (16, 64, 127, 576, 1536)] == [1, 1, 1, 9, 24]


def test_columns_that_are_kept_apart_take_what_the_others_left():
    """The loss is the layer's output error, whatever is apart, and smaller than with the column in its group."""
    draws = torch.Generator().manual_seed(3)
    x_TI = torch.randn(400, 128, generator=draws) @ torch.randn(128, 128, generator=draws)
    moment_II = x_TI.T @ x_TI / 400
    damped_II = moment_II.double() + 0.01 * moment_II.double().diagonal().mean() * torch.eye(128).double()
    weight_OI = with_one_huge_column()
    everything = torch.ones_like(weight_OI, dtype=torch.bool)

    def made(apart_K):
        found = factor(moment_II, damping=0.01, act_order=True, last=apart_K)
        rounded = round_weight(
            weight_OI,
            found.upper_II,
            Scheme(4, 32, False, columns=0 if apart_K is None else len(apart_K)),
            everything,
            order_I=found.order_I,
            power_I=moment_II.diagonal(),
            apart_K=apart_K,
        )
        gap_OI = weight_OI.double() - rounded.weight().double()
        return float(rounded.loss_O.sum()), float(((gap_OI @ damped_II) * gap_OI).sum())

    told, real = made(torch.tensor([37]))
    assert told == pytest.approx(real, rel=2e-3)
    assert real < 0.2 * made(None)[1]


def test_a_zero_in_a_column_that_is_kept_apart_stays_one():
    keep_OI = torch.rand(24, 128, generator=torch.Generator().manual_seed(4)) > 0.4
    weight_OI = with_one_huge_column() * keep_OI
    draws = torch.Generator().manual_seed(3)
    x_TI = torch.randn(400, 128, generator=draws) @ torch.randn(128, 128, generator=draws)
    apart_K = torch.tensor([5, 37])
    found = factor(x_TI.T @ x_TI, damping=0.01, act_order=True, last=apart_K)
    made = round_weight(
        weight_OI, found.upper_II, Scheme(4, 32, False, columns=2), keep_OI, order_I=found.order_I, apart_K=apart_K
    )
    assert bool((made.weight()[~keep_OI] == 0).all())
    assert bool((made.weight()[keep_OI][:50] != 0).any())


def choices(weight_OI):
    found = []
    for bits in (3, 4, 5, 6, 8):
        for columns in (0, 2) if bits < 8 else (0,):
            scheme = Scheme(bits, 32, False, columns=columns)
            nats = cost(weight_OI, nearest(weight_OI, scheme, POWER, FISHER))
            found.append(Choice(bits, scheme.storage(24, 128), nats, columns))
    return found


def test_a_budget_takes_columns_where_one_is_huge_and_not_where_all_are_alike():
    assert {one.columns for one in hull(choices(with_one_huge_column()))} == {0, 2}
    # Even: each costs the same. From five bits on, the few more to eight are next to nothing, and two columns pay.
    even = hull(choices(WEIGHT / POWER.sqrt()))
    assert [(one.bits, one.columns) for one in even if one.bits <= 4] == [(3, 0), (4, 0)]
