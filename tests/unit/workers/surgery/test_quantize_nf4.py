import pytest
import torch
from scipy.stats import norm

from tests.support.quantizing import operate, tensors
from workers.surgery.quantize_nf4 import levels, quantize

# QLoRA, appendix E.
PUBLISHED = [
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
]


def test_the_values_are_the_published_ones():
    torch.testing.assert_close(levels(), torch.tensor(PUBLISHED), rtol=0, atol=1e-6)
    assert float(levels()[8]) == pytest.approx(norm.ppf(0.5 + (0.9677083 - 0.5) / 8) / norm.ppf(0.9677083), abs=1e-6)


@pytest.mark.parametrize("group_size", [16, None])
def test_each_weight_goes_to_the_nearest_value(group_size):
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    weight[2, :16] = 0
    made = quantize(weight, group_size=group_size)
    for row, out in zip(weight, made, strict=True):
        for group, changed in zip(row.split(group_size or 64), out.split(group_size or 64), strict=True):
            scale = group.abs().max().to(torch.bfloat16).float()
            grid = torch.tensor(PUBLISHED) * scale
            nearest = (group[:, None] - grid).abs().amin(1)
            torch.testing.assert_close((changed - group).abs(), nearest, rtol=1e-4, atol=1e-6)
    assert bool((made[weight == 0] == 0).all())


def test_a_model_mixture_included(tiny, store):
    for kind in ("qwen2", "gemma2", "mixtral"):
        with operate(tiny(kind), store, {"type": "quantize.nf4", "group_size": 32}) as made:
            assert made.manifest.bits_per_weight == 4.5
            assert 0.05 < (made.manifest.reconstruction_error or 0) < 0.12
            name = next(name for name in tensors(made.path) if name.endswith(("down_proj.weight", ".w2.weight")))
            expected = quantize(tensors(tiny(kind))[name], group_size=32)
            assert torch.equal(tensors(made.path)[name], expected)
