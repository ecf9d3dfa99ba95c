from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.quantizing import divergence, operate, tensors
from workers.surgery.quantize_fp8 import quantize
from workers.surgery.store import CheckpointStore

Tiny = Callable[..., Path]


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "store", 10**9)


def e4m3() -> np.ndarray:
    """Every finite number of 4 exponent bits (bias 7) and 3 of fraction, by its definition."""
    found = {fraction / 8 * 2.0**-6 for fraction in range(8)}
    found |= {(1 + fraction / 8) * 2.0 ** (exponent - 7) for exponent in range(1, 16) for fraction in range(8)}
    found -= {480.0}  # its pattern is NaN
    return np.array(sorted(found | {-value for value in found}))


def test_each_weight_goes_to_the_nearest_number_of_the_format() -> None:
    weight = torch.randn(16, 96, generator=torch.Generator().manual_seed(0)) * 0.03
    weight[3] = 0
    made, scale = quantize(weight)
    grid = e4m3()
    assert grid[-1] == 448
    for row in range(16):
        ratio = weight[row].double().numpy() / scale[row].item()
        nearest = np.abs(np.clip(ratio, -448, 448)[:, None] - grid).min(1)
        moved = np.abs(made[row].double().numpy() / scale[row].item() - np.clip(ratio, -448, 448))
        assert np.allclose(moved, nearest, atol=1e-4)
    assert torch.equal(scale.to(torch.bfloat16).float(), scale)
    assert bool((made[3] == 0).all())


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2", "mixtral"])
def test_models_stay_near(tiny: Tiny, store: CheckpointStore, kind: str) -> None:
    with operate(tiny(kind), store, {"type": "quantize.fp8"}) as made:
        assert divergence(tiny(kind), made.path) < 0.01
        assert 0.01 < (made.manifest.reconstruction_error or 0) < 0.04
        before, after = tensors(tiny(kind)), tensors(made.path)
    for name, weight in before.items():
        if name.endswith(("_proj.weight", ".w1.weight", ".w2.weight", ".w3.weight")):
            assert torch.equal(after[name], quantize(weight)[0].to(torch.bfloat16)), name
        else:
            assert torch.equal(after[name], weight), name


def test_no_text_is_read_where_none_decides(tiny: Tiny, store: CheckpointStore) -> None:
    """`apply` without a source of calibration text refuses any step that reads one."""
    from app.contracts.recipe import QuantizeFp8
    from app.models.checkpoint import inspect
    from workers.surgery.recipe import apply

    step = QuantizeFp8(type="quantize.fp8")
    with apply(inspect(tiny()), (step,), store=store) as made:
        assert made.manifest.steps[0].calibration_tokens is None
