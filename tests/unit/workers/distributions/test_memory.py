"""Large pages change where a tensor lies, and nothing else."""

import gc

import pytest
import torch

from workers.distributions.memory import empty_large, in_large_pages


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shape", [(3, 5), (1, 1), (0, 4), (700, 1024)])
def test_a_copy_is_equal_and_its_own(shape: tuple[int, int], dtype: torch.dtype) -> None:
    original = torch.randn(shape).to(dtype)
    copy = in_large_pages(original)
    assert copy.dtype == dtype
    assert copy.shape == shape
    assert copy.is_contiguous()
    assert torch.equal(copy, original)
    copy += 1
    assert copy.numel() == 0 or not torch.equal(copy, original)


def test_memory_is_zero_and_lives_as_long_as_a_view_of_it() -> None:
    view = empty_large((512, 512), torch.float32)[100:200]
    gc.collect()
    assert not view.any()
    view.fill_(3)
    assert float(view.sum()) == 3 * 100 * 512
