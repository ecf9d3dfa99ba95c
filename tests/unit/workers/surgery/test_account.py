import pytest
import torch

from workers.surgery.account import change_of, totals


def test_an_error_is_relative_to_the_unmodified_weight():
    original = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    changed = torch.tensor([[3.0, 0.0], [0.0, 0.0]])
    change = change_of("w", changed, dtype="F32", steps=(1,), original=original, bits=4.5, sparsity=0.5)
    assert change.reconstruction_error == pytest.approx(4 / 5)
    assert change.original_norm == pytest.approx(5)
    assert (change.zeros, change.elements, change.nominal_bytes) == (3, 4, 3)


def test_what_a_step_does_not_set_is_what_the_one_before_it_left():
    weight = torch.ones(2, 2)
    first = change_of("w", weight, dtype="F32", steps=(0,), original=weight, bits=4.25, sparsity=0.5)
    second = change_of("w", weight, dtype="F32", steps=(2,), original=weight, before=first)
    assert (second.bits_per_weight, second.nominal_sparsity, second.steps) == (4.25, 0.5, (0, 2))


def test_a_weight_of_another_shape_has_no_error():
    change = change_of("w", torch.ones(2, 3), dtype="F32", steps=(0,), original=torch.ones(2, 2))
    assert change.reconstruction_error is None
    assert change.bits_per_weight == 32


def test_totals_weigh_by_elements_and_by_norm():
    big = change_of("a", torch.zeros(1, 3), dtype="F32", steps=(0,), original=torch.tensor([[2.0, 2.0, 1.0]]), bits=2)
    same = torch.tensor([[4.0]])
    small = change_of("b", same, dtype="F32", steps=(0,), original=same, bits=6)
    bits, sparsity, error = totals([big, small])
    assert (bits, sparsity) == (3.0, 0.75)
    assert error == pytest.approx((9 / (9 + 16)) ** 0.5)
    assert totals([]) == (None, None, None)
