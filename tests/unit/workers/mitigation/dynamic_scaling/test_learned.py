"""What is learned of a rounded weight: where it begins, its gradients in closed form, what stays."""

from itertools import product

import pytest
import torch

from workers.mitigation.dynamic_scaling.grids import Scheme
from workers.mitigation.dynamic_scaling.learned import Learned, LearnedBlock
from workers.mitigation.dynamic_scaling.rounding import Rounded, round_weight

KEEP = torch.rand(6, 64, generator=torch.Generator().manual_seed(3)) > 0.3
WEIGHT = torch.randn(6, 64, generator=torch.Generator().manual_seed(4)) * KEEP
GRADIENT = torch.randn(6, 64, generator=torch.Generator().manual_seed(5))
APART = torch.tensor([2, 41])


def rounded(*, symmetric=False, apart=False):
    scheme = Scheme(3, 32, symmetric, columns=2 if apart else 0)
    return round_weight(WEIGHT, torch.eye(64), scheme, KEEP, apart_K=APART if apart else None)


def cut(made):
    """Where the grid ends before the weight: its level, by hand, is beyond the codes."""
    scale_OI, zero_OI = (one.repeat_interleave(32, 1).double() for one in (made.scale_OG, made.zero_OG))
    level_OI = WEIGHT.double() / scale_OI + zero_OI
    return ((level_OI < -0.5) | (level_OI > 7.5)) & KEEP


@pytest.mark.parametrize(("symmetric", "trained", "apart"), list(product([False, True], repeat=3)))
def test_it_begins_where_rounding_ended(symmetric, trained, apart):
    made = rounded(symmetric=symmetric, apart=apart)
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


def test_a_scales_gradient_knows_nothing_of_columns_that_are_kept_apart():
    made = rounded(apart=True)
    learned = Learned(made, KEEP, trained=False)
    learned.weight().backward(GRADIENT)
    others_OI = made.weight().index_fill(1, APART, 0)
    torch.testing.assert_close(learned.factor_OG.grad, (GRADIENT * others_OI).reshape(6, 2, 32).sum(-1))


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


def test_an_offset_of_a_whole_step_moves_the_code_by_one_within_its_bits():
    learned = Learned(rounded(), KEEP, trained=True)
    with torch.no_grad():
        learned.offset_OI.fill_(1.0)
    made = learned.finished()
    before = rounded().codes_OI.int()
    moved = KEEP & ~(cut(rounded()) & (before == 0))  # what lies below the grid stays at its end
    expected = torch.where(moved, (before + 1).clamp(max=7), before)
    assert torch.equal(made.codes_OI.int(), expected)
    assert bool((made.weight()[~KEEP] == 0).all())


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


def test_a_zero_point_that_cuts_what_it_need_not_is_found_by_descent():
    """Levels −3 … 12 need a zero point of 3; with 4, the greatest is cut. Sixteen weights a group, one step too low."""
    target_OI = torch.arange(-3.0, 13.0).expand(4, 16).contiguous()
    codes_OI = (target_OI + 4).clamp(0, 15)
    made = Rounded(
        Scheme(4, 16, False),
        codes_OI.to(torch.uint8),
        torch.ones(4, 1),
        torch.full((4, 1), 4.0),
        (target_OI + 4 - codes_OI).to(torch.bfloat16),
        torch.zeros(4),
    )
    learned = Learned(made, torch.ones(4, 16, dtype=torch.bool), trained=True)
    for _ in range(20):
        learned.shift_OG.grad = None
        (learned.weight() - target_OI).square().sum().backward()
        with torch.no_grad():
            learned.shift_OG -= 0.05 * learned.shift_OG.grad
    assert torch.equal(learned.finished().zero_OG, torch.full((4, 1), 3.0))
    assert torch.equal(learned.finished().weight(), target_OI)


def test_what_was_learned_is_learned_on_from_where_it_is():
    learned = Learned(rounded(apart=True), KEEP, trained=True)
    with torch.no_grad():
        learned.offset_OI.copy_(0.7 * GRADIENT)
        learned.shift_OG.fill_(1.0)
        learned.factor_OG.fill_(0.02)
    again = learned.settled(trained=True)
    assert torch.equal(again.weight(), learned.weight())
    assert not torch.equal(again.weight(), rounded(apart=True).weight())
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
