"""What is learned of a rounded weight: where it begins, its gradients in closed form, what stays."""

import torch

from workers.mitigation.dynamic_scaling.grids import Scheme
from workers.mitigation.dynamic_scaling.rounding import Rounded, round_weight
from workers.mitigation.dynamic_scaling.tuning import Learned, LearnedBlock

KEEP = torch.rand(6, 16, generator=torch.Generator().manual_seed(3)) > 0.3
WEIGHT = torch.randn(6, 16, generator=torch.Generator().manual_seed(4)) * KEEP


def rounded(*, symmetric: bool = False) -> Rounded:
    return round_weight(WEIGHT, torch.eye(16), Scheme(4, 8, symmetric), KEEP)


def test_it_begins_where_rounding_ended() -> None:
    for symmetric in (False, True):
        for rounding in (False, True):
            learned = Learned(rounded(symmetric=symmetric), KEEP, rounding=rounding)
            assert torch.equal(learned.weight(), rounded(symmetric=symmetric).weight())
            assert torch.equal(learned.finished().codes_OI, rounded(symmetric=symmetric).codes_OI)


def test_a_scales_gradient_is_the_sum_over_its_group() -> None:
    learned = Learned(rounded(), KEEP, rounding=True)
    gradient_OI = torch.randn(6, 16, generator=torch.Generator().manual_seed(5))
    learned.weight().backward(gradient_OI)  # type: ignore[no-untyped-call]
    closed_OG = (gradient_OI * rounded().weight()).reshape(6, 2, 8).sum(-1)
    torch.testing.assert_close(learned.factor_OG.grad, closed_OG)


def test_a_rounding_gradient_is_the_weights_times_the_scale_and_none_for_zeros_that_stay() -> None:
    learned = Learned(rounded(), KEEP, rounding=True)
    gradient_OI = torch.randn(6, 16, generator=torch.Generator().manual_seed(5))
    learned.weight().backward(gradient_OI)  # type: ignore[no-untyped-call]
    assert learned.offset_OI is not None
    closed_OI = gradient_OI * rounded().scale_OG.repeat_interleave(8, 1) * KEEP
    assert learned.offset_OI.grad is not None
    torch.testing.assert_close(learned.offset_OI.grad, closed_OI)


def test_an_offset_of_a_whole_step_moves_the_code_by_one_within_its_bits() -> None:
    learned = Learned(rounded(), KEEP, rounding=True)
    assert learned.offset_OI is not None
    with torch.no_grad():
        learned.offset_OI.fill_(1.0)
    made = learned.finished()
    before = rounded().codes_OI.int()
    expected = torch.where(KEEP, (before + 1).clamp(max=15), before)
    assert torch.equal(made.codes_OI.int(), expected)
    assert bool((made.weight()[~KEEP] == 0).all())


def test_scales_are_stored_as_they_were_tuned() -> None:
    learned = Learned(rounded(), KEEP, rounding=False)
    with torch.no_grad():
        learned.factor_OG.fill_(0.013)
    made = learned.finished()
    assert torch.equal(made.scale_OG, (rounded().scale_OG * 1.013).bfloat16().float())
    assert torch.equal(made.weight(), learned.weight())


def test_a_norm_that_is_not_moved_is_unchanged() -> None:
    vector = torch.tensor([1.0, 0.5, 0.0]).bfloat16()
    block = LearnedBlock({}, {"norm.weight": vector}, {})
    assert torch.equal(block.vector("norm.weight").bfloat16(), vector)
    with torch.no_grad():
        block.factors["norm.weight"].fill_(0.1)
    torch.testing.assert_close(block.vector("norm.weight"), torch.tensor([1.1, 0.55, 0.05]))
