import pytest
import torch

from tests.support.pruning import half_pruned
from workers.mitigation.gradient_pruning.kept import KeptWeights
from workers.mitigation.reconstruction import schedule


def test_steps_are_relative_to_the_size_of_what_is_kept():
    small, large = half_pruned(), half_pruned()
    with torch.no_grad():
        large.weight.mul_(100)
    moved = []
    for one in (small, large):
        kept = KeptWeights({"w": one}, rate=0.01)
        before = one.weight.detach().clone()
        one.weight.grad = torch.ones_like(one.weight)
        kept.step(0.1)
        moved.append(float((one.weight.detach() - before).norm() / before.norm()))
        kept.close()
    assert moved[0] == pytest.approx(moved[1], rel=1e-3)
    assert moved[0] == pytest.approx(0.01 * schedule(0.1), rel=1e-3)
