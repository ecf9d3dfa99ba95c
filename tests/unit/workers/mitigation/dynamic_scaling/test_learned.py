"""What is learned of a rounded weight: where it begins, its gradients in closed form, what stays."""

from itertools import product

import pytest
import torch

from workers.mitigation.dynamic_scaling.grids import Scheme
from workers.mitigation.dynamic_scaling.learned import Learned, LearnedBlock
from workers.mitigation.dynamic_scaling.rounding import round_weight

KEEP = torch.rand(6, 64, generator=torch.Generator().manual_seed(3)) > 0.3
WEIGHT = torch.randn(6, 64, generator=torch.Generator().manual_seed(4)) * KEEP
GRADIENT = torch.randn(6, 64, generator=torch.Generator().manual_seed(5))


def rounded(*, symmetric=False):
    return round_weight(WEIGHT, torch.eye(64), Scheme(3, 32, symmetric), KEEP)


def cut(made):
    """Where the grid ends before the weight: its level, by hand, is beyond the codes."""
    scale_OI, zero_OI = (one.repeat_interleave(32, 1).double() for one in (made.scale_OG, made.zero_OG))
    level_OI = WEIGHT.double() / scale_OI + zero_OI
    return ((level_OI < -0.5) | (level_OI > 7.5)) & KEEP


@pytest.mark.parametrize(("symmetric", "trained"), list(product([False, True], repeat=2)))
def test_it_begins_where_rounding_ended(symmetric, trained):
    made = rounded(symmetric=symmetric)
    learned = Learned(made, KEEP, trained=trained)
    assert torch.equal(learned.weight(), made.weight())
    finished = learned.finished()
    assert torch.equal(finished.codes_OI, made.codes_OI)
    assert torch.equal(finished.zero_OG, made.zero_OG)
    assert torch.equal(finished.weight(), made.weight())


def test_a_scales_gradient_is_the_sum_over_its_group():
    learned = Learned(rounded(), KEEP, trained=True)
    learned.weight().backward(GRADIENT)
    closed_OG = (GRADIENT * rounded().weight()).reshape(6, 2, 32).sum(-1)
    torch.testing.assert_close(learned.factor_OG.grad, closed_OG)


def test_a_rounding_gradient_is_the_weights_times_the_scale_and_none_for_what_stays_or_is_cut():
    made = rounded()
    learned = Learned(made, KEEP, trained=True)
    learned.weight().backward(GRADIENT)
    assert bool(cut(made).any())
    closed_OI = GRADIENT * made.scale_OG.repeat_interleave(32, 1) * KEEP * ~cut(made)
    torch.testing.assert_close(learned.offset_OI.grad, closed_OI)


def test_a_zero_points_gradient_is_that_of_what_its_grid_cuts():
    made = rounded()
    learned = Learned(made, KEEP, trained=True)
    learned.weight().backward(GRADIENT)
    closed_OG = -(GRADIENT * made.scale_OG.repeat_interleave(32, 1) * cut(made)).reshape(6, 2, 32).sum(-1)
    assert bool(closed_OG.any())
    torch.testing.assert_close(learned.shift_OG.grad, closed_OG)


def test_a_zero_point_that_moves_leaves_weights_where_they_are_unless_the_grid_cuts_them():
    """Zeros stay zeros; zero points stay codes, however far they are sent."""
    learned = Learned(rounded(), KEEP, trained=True)
    for shift in (-1.0, 1.0, 40.0):
        with torch.no_grad():
            learned.shift_OG.fill_(shift)
        made = learned.finished()
        assert torch.equal(made.zero_OG, (rounded().zero_OG + shift).clamp(0, 7))
        assert torch.equal(made.weight(), learned.weight())
        # by hand: the weight's level as it was, on the moved grid
        scale_OI, zero_OI = (one.repeat_interleave(32, 1) for one in (made.scale_OG, made.zero_OG))
        level_OI = WEIGHT / scale_OI + zero_OI
        wanted_OI = torch.where(KEEP, (level_OI.round().clamp(0, 7) - zero_OI) * scale_OI, 0)
        halfway_OI = (level_OI - level_OI.floor() - 0.5).abs() < 0.01  # which way is a matter of the last digit
        assert float(halfway_OI.float().mean()) < 0.1
        assert float((made.weight() - wanted_OI)[~halfway_OI].abs().max()) < 1e-6
        assert bool((made.weight()[~KEEP] == 0).all())


def test_what_was_learned_is_learned_on_from_where_it_is():
    learned = Learned(rounded(), KEEP, trained=True)
    with torch.no_grad():
        learned.offset_OI.copy_(0.7 * GRADIENT)
        learned.shift_OG.fill_(1.0)
        learned.factor_OG.fill_(0.02)
    again = learned.settled(trained=True)
    assert torch.equal(again.weight(), learned.weight())
    assert not torch.equal(again.weight(), rounded().weight())
    assert bool((again.weight()[~KEEP] == 0).all())


def test_scales_are_stored_as_they_were_tuned():
    learned = Learned(rounded(), KEEP, trained=False)
    with torch.no_grad():
        learned.factor_OG.fill_(0.013)
    made = learned.finished()
    assert torch.equal(made.scale_OG, (rounded().scale_OG * 1.013).bfloat16().float())
    assert torch.equal(made.weight(), learned.weight())


def test_a_norm_that_is_not_moved_is_unchanged():
    vector = torch.tensor([1.0, 0.5, 0.0]).bfloat16()
    block = LearnedBlock({}, {"norm.weight": vector}, {})
    assert torch.equal(block.vector("norm.weight").bfloat16(), vector)
    with torch.no_grad():
        block.factors["norm.weight"].fill_(0.1)
    torch.testing.assert_close(block.vector("norm.weight"), torch.tensor([1.1, 0.55, 0.05]))
    settled = block.settled(trained=False)
    assert torch.equal(settled.vectors["norm.weight"], torch.tensor([1.1, 0.55, 0.05]).bfloat16())
    assert not bool(settled.factors["norm.weight"].any())
