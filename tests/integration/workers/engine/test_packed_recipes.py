"""vLLM's own kernels on what recipes pack: the same hidden states as the same weights in bf16, but for rounding."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from app.models.checkpoint import inspect
from app.models.processor import has_amx
from tests.support.processor import needs_avx512, needs_vnni
from tests.support.quantizing import operate
from workers.engine.pool import EnginePool
from workers.engine.scoring import ScoringEngine
from workers.surgery.dequantize import dequantize
from workers.surgery.store import CheckpointStore

Tiny = Callable[..., Path]
GROUPED: dict[str, Any] = {"bits": 4, "group_size": 32, "form": "packed"}


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "store", 10**9)


def states(pool: EnginePool, folder: Path, windows: list[list[int]]) -> torch.Tensor:
    engine = ScoringEngine(folder, settings=pool.settings, max_model_len=128, pool=pool)
    return torch.cat([hidden_TD.float() for _, hidden_TD in engine.score(windows)])


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


@needs_avx512
@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2"])
def test_four_bit_weights(
    tiny: Tiny, pool: EnginePool, store: CheckpointStore, windows: list[list[int]], kind: str
) -> None:
    """Symmetric (GPTQ), with zero points (AWQ): the kernels differ from bf16's by rounding alone, the model by far
    more."""
    plain = states(pool, tiny(kind), windows)
    for step in ({"type": "quantize.gptq", "symmetric": True} | GROUPED, {"type": "quantize.awq"} | GROUPED):
        with (
            operate(tiny(kind), store, step) as made,
            dequantize(inspect(made.path), device="cpu", store=store) as twin,
        ):
            packed, same = states(pool, made.path, windows), states(pool, twin.path, windows)
        assert apart(packed, same) < 0.02, step
        assert apart(packed, plain) > 3 * apart(packed, same), step


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2"])
@pytest.mark.parametrize(
    "step",
    [
        pytest.param({"type": "quantize.smoothquant"}, marks=needs_vnni),
        pytest.param(
            {"type": "quantize.smoothquant", "dynamic": False},
            marks=pytest.mark.skipif(has_amx(), reason="refused: the kernel for AMX ignores fixed grids"),
        ),
        {"type": "quantize.smoothquant", "bits": 4},
        {"type": "quantize.fp8", "activations": "dynamic"},
    ],
)
def test_eight_bit_activations_move_as_much_as_those_that_are_simulated(
    tiny: Tiny, pool: EnginePool, store: CheckpointStore, windows: list[list[int]], step: dict[str, Any], kind: str
) -> None:
    """One product of one layer: further on, codes part where two kernels round to bf16 differently. The kernel of
    4-bit weights has a zero point a token, which is not simulated: there only the size of the error is the same."""
    step = step | {"layers": [2], "modules": ["gate_proj", "up_proj"]}
    folder = tiny(kind)
    with operate(folder, store, step | {"form": "packed"}) as packed, operate(folder, store, step) as simulated:
        one, other = states(pool, packed.path, windows), states(pool, simulated.path, windows)
        with dequantize(inspect(packed.path), device="cpu", store=store) as twin:
            untouched = states(pool, twin.path, windows)
    assert 0.4 < apart(one, untouched) / apart(other, untouched) < 2.5
    if step.get("bits") != 4:
        assert apart(one, other) < 0.85 * apart(one, untouched)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2"])
def test_eight_bit_floats(
    tiny: Tiny, pool: EnginePool, store: CheckpointStore, windows: list[list[int]], kind: str
) -> None:
    step = {"type": "quantize.fp8", "form": "packed", "activations": "dynamic"}
    with operate(tiny(kind), store, step) as made, dequantize(inspect(made.path), device="cpu", store=store) as twin:
        assert 0 < apart(states(pool, made.path, windows), states(pool, twin.path, windows)) < 0.3


@needs_avx512
def test_layers_that_stay_plain(tiny: Tiny, pool: EnginePool, store: CheckpointStore, windows: list[list[int]]) -> None:
    step = {"type": "quantize.rtn", "layers": [1], "modules": ["mlp"]} | GROUPED
    with operate(tiny(), store, step) as made, dequantize(inspect(made.path), device="cpu", store=store) as twin:
        assert apart(states(pool, made.path, windows), states(pool, twin.path, windows)) < 0.02
