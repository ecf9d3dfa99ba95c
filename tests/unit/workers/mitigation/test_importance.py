"""What tokens count: mean 1, by their gradient, and the same for those that no gradient was gathered of."""

import pytest
import torch

from workers.mitigation.importance import importance


def test_half_of_a_tokens_weight_is_by_its_gradient():
    positions_NL = torch.tensor([[4.0, 0.0], [0.0, 0.0]])
    assert importance(positions_NL, 4, share=0.5).tolist() == [2.5, 0.5, 0.5, 0.5]
    assert importance(positions_NL, 4, share=0.0).tolist() == [1.0] * 4


def test_text_beyond_the_gradients_counts_alike_and_the_mean_stays_1():
    positions_NL = torch.tensor([[3.0, 1.0]])
    weight_T = importance(positions_NL, 6, share=0.5)
    assert weight_T[2:].tolist() == [0.5] * 4
    assert float(weight_T.mean()) == pytest.approx(1.0)
    assert float(weight_T[0] - 0.5) == pytest.approx(3 * float(weight_T[1] - 0.5))


def test_without_any_gradient_all_count_alike():
    assert importance(torch.zeros(2, 2), 5).tolist() == [1.0] * 5
