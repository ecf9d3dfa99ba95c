"""Rounding with error propagation: its loss in closed form, the search, zeros, grids."""

import pytest
import torch

from workers.mitigation.dynamic_scaling import grids, rounding
from workers.mitigation.dynamic_scaling.grids import Scheme
from workers.mitigation.dynamic_scaling.rounding import round_weight, search
from workers.surgery.quantize_gptq import factor
from workers.surgery.quantize_grid import fit

ALL = torch.ones(12, 32, dtype=torch.bool)


def layer(seed=0):
    """(weight (12, 32), E[x xᵀ] of correlated inputs, its damped self in float64)."""
    draws = torch.Generator().manual_seed(seed)
    weight_OI = torch.randn(12, 32, generator=draws)
    x_TI = torch.randn(200, 32, generator=draws) @ torch.randn(32, 32, generator=draws)
    moment_II = x_TI.T @ x_TI / 200
    damped_II = moment_II.double() + 0.01 * moment_II.double().diagonal().mean() * torch.eye(32).double()
    return weight_OI, moment_II, damped_II


def error(weight_OI, made_OI, damped_II):
    """Each row's (w − ŵ) H (w − ŵ)ᵀ in float64."""
    gap_OI = weight_OI.double() - made_OI.double()
    return ((gap_OI @ damped_II) * gap_OI).sum(1)


def rounded(scheme, seed=0):
    weight_OI, moment_II, _ = layer(seed)
    return round_weight(weight_OI, factor(moment_II, damping=0.01).upper_II, scheme, ALL)


@pytest.mark.parametrize("scheme", [Scheme(4, 8, False), Scheme(3, None, True)])
def test_the_loss_is_the_layers_output_error(scheme):
    weight_OI, _, damped_II = layer()
    made = rounded(scheme)
    torch.testing.assert_close(made.loss_O.double(), error(weight_OI, made.weight(), damped_II), rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize(("seed", "symmetric"), [(0, False), (1, True), (2, False), (3, True)])
def test_no_group_does_worse_on_the_searched_grid_than_on_the_one_that_spans_its_range(seed, symmetric):
    weight_OI, moment_II, _ = layer(seed)
    scheme, power_I = Scheme(3, 8, symmetric), moment_II.diagonal()
    scale_GO, zero_GO = search(weight_OI, power_I, scheme)
    spanned_OI = fit(weight_OI, bits=3, group_size=8, symmetric=symmetric, dtype=torch.bfloat16).nearest(weight_OI)
    scale_OI, zero_OI = (one.T.repeat_interleave(8, 1).double() for one in (scale_GO, zero_GO))
    code_OI = ((weight_OI.double() / scale_OI).round() + zero_OI).clamp(0, scheme.top)
    searched = ((code_OI - zero_OI) * scale_OI - weight_OI.double()).square() * power_I.double()
    spanned = (spanned_OI.double() - weight_OI.double()).square() * power_I.double()
    gain = spanned.reshape(12, 4, 8).sum(2) - searched.reshape(12, 4, 8).sum(2)
    assert float(gain.min()) >= -1e-5
    assert float(gain.max()) > 1e-3


@pytest.mark.parametrize("size", [8, None])
def test_columns_in_another_order_are_those_of_a_weight_that_stands_in_it(size):
    """The loss is that of H; with one grid a row, order is a matter of names alone."""
    weight_OI, moment_II, damped_II = layer()
    found = factor(moment_II, damping=0.01, act_order=True)
    made = round_weight(
        weight_OI, found.upper_II, Scheme(4, size, False), ALL, order_I=found.order_I, power_I=moment_II.diagonal()
    )
    torch.testing.assert_close(made.loss_O.double(), error(weight_OI, made.weight(), damped_II), rtol=2e-3, atol=1e-5)
    if size is None:
        moved = round_weight(
            weight_OI[:, found.order_I],
            found.upper_II,
            Scheme(4, None, False),
            ALL,
            power_I=moment_II.diagonal()[found.order_I],
        )
        torch.testing.assert_close(moved.weight(), made.weight()[:, found.order_I])


def test_with_inputs_that_do_not_correlate_and_one_grid_it_is_rounding_to_nearest(monkeypatch):
    monkeypatch.setattr(grids, "SHRINK", (1.0,))
    weight_OI, _, _ = layer()
    made = round_weight(weight_OI, torch.eye(32), Scheme(4, 8, False), ALL)
    nearest = fit(weight_OI, bits=4, group_size=8, symmetric=False, dtype=torch.bfloat16)
    torch.testing.assert_close(made.weight(), nearest.nearest(weight_OI), rtol=1e-6, atol=1e-6)


def test_weights_that_are_0_stay_0_and_their_error_is_made_good_by_the_others():
    weight_OI, moment_II, damped_II = layer()
    keep_OI = torch.rand(12, 32, generator=torch.Generator().manual_seed(5)) > 0.4
    weight_OI = weight_OI * keep_OI
    made = round_weight(weight_OI, factor(moment_II, damping=0.01).upper_II, Scheme(4, 8, False), keep_OI)
    assert bool((made.weight()[~keep_OI] == 0).all())
    torch.testing.assert_close(made.loss_O.double(), error(weight_OI, made.weight(), damped_II), rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [3, 4, 5, 6, 8])
def test_codes_fit_their_bits_and_scales_their_storage(bits, symmetric):
    made = rounded(Scheme(bits, 8, symmetric)).quantized()
    assert made.grid.least <= int(made.codes_OI.min())
    assert int(made.codes_OI.max()) <= made.grid.most
    assert torch.equal(made.grid.scale_OG, made.grid.scale_OG.bfloat16().float())
    assert (made.grid.zero_OG is None) == symmetric


def test_what_rounding_took_away_rounds_back_to_the_code():
    made = rounded(Scheme(3, 8, False))
    level_OI = made.codes_OI + made.rest_OI.float()
    assert torch.equal(level_OI.round().clamp(0, 7), made.codes_OI.float())
    ends_OI = (made.codes_OI == 0) | (made.codes_OI == 7)
    assert float(made.rest_OI[~ends_OI].abs().max()) <= rounding.NEARLY_HALF
    # what an end of the grid cuts is beyond it
    assert bool((made.rest_OI[made.codes_OI == 0] <= rounding.NEARLY_HALF).all())
    assert bool((made.rest_OI[made.codes_OI == 7] >= -rounding.NEARLY_HALF).all())
    assert float(made.rest_OI.abs().max()) > 0.5


def test_storage_counts_codes_scales_and_zero_points():
    assert Scheme(4, 64, False).bits_per_weight(576) == 4 + (16 + 4) / 64
    assert Scheme(3, 64, True).bits_per_weight(576) == 3 + 16 / 64
    assert Scheme(8, None, True).bits_per_weight(576) == 8 + 16 / 576
