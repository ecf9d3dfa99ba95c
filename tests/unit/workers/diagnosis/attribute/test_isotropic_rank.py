"""What noise holds in its first directions."""

import pytest
import torch

from workers.diagnosis.attribute.isotropic_rank import noise_share


@pytest.mark.parametrize("shape", [(64, 64), (96, 96), (128, 128), (64, 576), (576, 192), (512, 512)])
def test_it_is_what_drawn_noise_holds(shape: tuple[int, int]) -> None:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    energy = torch.linalg.svdvals(drawn).square()
    assert noise_share(*shape, 16) == pytest.approx(float(energy[:16].sum() / energy.sum()), abs=0.01)
    assert noise_share(*shape, 16) == noise_share(*reversed(shape), 16)


def test_noise_of_few_directions_is_all_in_them() -> None:
    assert noise_share(16, 500, 16) == 1.0
    assert noise_share(17, 500, 16) < 1.0
