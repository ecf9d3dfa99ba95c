"""Norms in one loop: what vLLM's own chain of operations gives, and what float64 gives."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from app.settings import Settings
from workers.engine import norms
from workers.engine.pool import EnginePool
from workers.engine.scoring import ScoringEngine

Tiny = Callable[..., Path]


@pytest.fixture(scope="module")
def norm() -> Any:
    from vllm import ir

    norms.register()
    return ir.ops.fused_add_rms_norm


def arguments(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(len(shape))
    made = (torch.randn(size, generator=generator) for size in (shape, shape, shape[-1:]))
    x, residual, weight = (tensor.to(dtype) for tensor in made)
    return x * 3, residual, weight


def steps_apart(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """How many representable numbers lie between them, where neither changes its sign."""
    kind = {2: torch.int16, 4: torch.int32}[one.element_size()]
    return (one.view(kind).long() - other.view(kind).long()).abs()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("shape", [(1, 48), (7, 48), (257, 576), (33, 4, 48)])
def test_it_rounds_where_vllms_own_chain_rounds(norm: Any, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x, residual, weight = arguments(shape, dtype)
    with torch.inference_mode():
        out, total = norm.impls[norms.PROVIDER].impl_fn(x, residual, weight, 1e-5)
        expected, sums = norm.impls["native"].impl_fn(x, residual, weight, 1e-5)
    assert torch.equal(total, sums)
    assert out.shape == x.shape
    apart = steps_apart(out, expected)
    assert int(apart.max()) <= (8 if dtype == torch.float32 else 2)
    if dtype != torch.float32:
        assert float((apart > 0).float().mean()) < 1e-3


def test_it_is_the_norm_of_the_sum_in_float64(norm: Any) -> None:
    x, residual, weight = arguments((129, 576), torch.float32)
    out, total = norm.impls[norms.PROVIDER].impl_fn(x, residual, weight, 1e-3)
    exact = x.double() + residual.double()
    torch.testing.assert_close(total.double(), exact, rtol=1e-6, atol=1e-6)
    expected = exact / (exact.square().mean(1, keepdim=True) + 1e-3).sqrt() * weight.double()
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("width", [576, 4096])
def test_a_row_does_not_depend_on_the_rows_beside_it(norm: Any, width: int) -> None:
    x, residual, weight = arguments((300, width), torch.bfloat16)
    run = norm.impls[norms.PROVIDER].impl_fn
    with torch.inference_mode():
        whole = run(x, residual, weight, 1e-5)[0]
        parts = [run(x[rows], residual[rows], weight, 1e-5)[0] for rows in (slice(0, 1), slice(1, 8), slice(8, 300))]
    assert torch.equal(torch.cat(parts), whole)


def test_with_more_threads_neither(tmp_path: Path) -> None:
    """Four threads would share one row of 4,096 numbers; a first call of few numbers must not make the loop serial."""
    program = """
import sys, torch
from workers.engine import launch, norms
launch.load_vllm()
norms.register()
import torch._inductor.config as config
from torch._inductor.utils import run_and_get_code
from vllm import ir
config.cpp.threads = 4
torch.set_num_threads(4)
run = ir.ops.fused_add_rms_norm.impls[norms.PROVIDER].impl_fn
draws = torch.Generator().manual_seed(0)
x, residual = (torch.randn(1000, 4096, generator=draws).bfloat16() for _ in range(2))
weight = torch.randn(4096, generator=draws).bfloat16()
with torch.inference_mode():
    first = (part[:3, :64].contiguous() for part in (x, residual))
    _, code = run_and_get_code(run, *first, weight[:64], 1e-5)
    alone = torch.cat([run(x[i:i + 1], residual[i:i + 1], weight, 1e-5)[0] for i in range(1000)])
    print(torch.equal(alone, run(x, residual, weight, 1e-5)[0]), "omp parallel" in "".join(code))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)},
        timeout=300,
    )
    assert done.stdout.split()[-2:] == ["True", "True"]


def test_what_it_does_not_know_is_left_to_vllm(norm: Any) -> None:
    x, residual, weight = arguments((6, 64), torch.bfloat16)
    with norm.set_priority([norms.PROVIDER]):
        assert norm.dispatch(x, residual, weight, 1e-5).provider == norms.PROVIDER
        for other in ((x, residual, None, 1e-5), (x, residual, weight, 1e-5, 32), (x.T, residual.T, weight, 1e-5)):
            assert norm.dispatch(*other).provider == "native"


def test_engines_on_a_cpu_use_it(tiny: Tiny, engine_settings: Settings, windows: list[list[int]], norm: Any) -> None:
    norm.set_default(["native"])
    pool = EnginePool(engine_settings)
    engine = ScoringEngine(tiny("llama"), settings=engine_settings, max_model_len=128, pool=pool)
    fused = [state for _, state in engine.score(windows)]
    assert norm.get_priority()[0] == norms.PROVIDER
    with norm.set_priority(["native"]):
        plain = [state for _, state in engine.score(windows)]
    pool.close()
    # A number that is rounded otherwise once moves others after it: far less than bf16 itself does.
    error = torch.cat(fused).float() - torch.cat(plain).float()
    assert float(error.norm() / torch.cat(plain).float().norm()) < 2e-3
