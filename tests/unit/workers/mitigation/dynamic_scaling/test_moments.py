"""Moments of two models' inputs against float64 sums."""

import torch

from workers.mitigation.dynamic_scaling.moments import Moment


def test_means_over_batches_of_different_lengths_are_those_of_all_tokens():
    draws = torch.Generator().manual_seed(0)
    x_TI, own_TI = torch.randn(30, 6, generator=draws), torch.randn(30, 6, generator=draws) + 1
    divide_I = torch.tensor([1.0, 2, 4, 0.5, 1, 3])
    moment = Moment(6, divide_I)
    for part in (slice(0, 7), slice(7, 30)):
        moment.see(own_TI[part], x_TI[part])
    gap_TI = (x_TI / divide_I - own_TI).double()
    torch.testing.assert_close(moment.own_II.double(), own_TI.double().T @ own_TI.double() / 30, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(moment.shift_I.double(), gap_TI.mean(0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(moment.mean_I.double(), own_TI.double().mean(0), rtol=1e-5, atol=1e-5)


def test_tokens_count_by_their_weight_through_all_batches():
    draws = torch.Generator().manual_seed(2)
    x_TI, own_TI = torch.randn(30, 6, generator=draws), torch.randn(30, 6, generator=draws)
    weight_T = torch.rand(30, generator=draws) * 5
    moment = Moment(6, None, weight_T)
    for part in (slice(0, 11), slice(11, 12), slice(12, 30)):
        moment.see(own_TI[part], x_TI[part])
    own, gap, weight = own_TI.double(), (x_TI - own_TI).double(), weight_T.double()[:, None]
    torch.testing.assert_close(moment.own_II.double(), own.T @ (weight * own) / 30, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(moment.shift_I.double(), gap.mean(0), rtol=1e-5, atol=1e-5)
