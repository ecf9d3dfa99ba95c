from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.profiler import ProfilerActivity, profile

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import CheckpointInfo, TensorInfo, inspect
from tests.support.refusals import refused
from tests.support.stopping import StoppedError, stop_after
from tests.support.tiny import make_checkpoint
from workers.engine import finite
from workers.engine.finite import _count_bad, check_finite


@pytest.mark.parametrize(
    "dtype",
    [torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2],
    ids=str,
)
def test_every_float_is_judged_as_float64_judges_it(dtype: torch.dtype) -> None:
    if dtype.itemsize == 1:
        values = torch.arange(256, dtype=torch.uint8).view(dtype)
    elif dtype.itemsize == 2:
        values = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16).view(dtype)
    else:
        values = torch.tensor([0.0, -0.0, 1.0, torch.finfo(dtype).max, torch.inf, -torch.inf, torch.nan], dtype=dtype)
    assert _count_bad(values) == int((~torch.isfinite(values.to(torch.float64))).sum())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_bad_weight_is_named(tmp_path: Path, value: float) -> None:
    folder = make_checkpoint(tmp_path)
    check_finite(inspect(folder))
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.2.mlp.up_proj.weight"][3, 5] = value
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with refused(ErrorCode.CHECKPOINT_NOT_FINITE, match=r"1 of 8192 numbers of tensor model\.layers\.2\.mlp\.up_proj"):
        check_finite(inspect(folder))


def test_packed_integers_are_not_looked_at_but_their_scales_are(tmp_path: Path) -> None:
    save_file({"w": torch.full((4, 4), 0x7F80, dtype=torch.int32), "s": torch.ones(4)}, tmp_path / "m.safetensors")
    tensors = {"w": TensorInfo("I32", (4, 4), "m.safetensors"), "s": TensorInfo("F32", (4,), "m.safetensors")}
    info = CheckpointInfo(tmp_path, {}, "LlamaForCausalLM", 1, 4, 4, None, tensors, {}, "w4a16", 0, tied=False)
    check_finite(info)
    save_file(
        {"w": torch.zeros((4, 4), dtype=torch.int32), "s": torch.full((4,), torch.inf)}, tmp_path / "m.safetensors"
    )
    with pytest.raises(HemostatError, match="tensor s "):
        check_finite(info)


def test_it_stops_when_told_to(tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        check_finite(inspect(make_checkpoint(tmp_path)), stop_after())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64, torch.float8_e5m2], ids=str)
def test_memory_is_that_of_a_piece_whatever_the_tensor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    """By torch's own count of what it allocates, to which it adds the file that it maps."""
    monkeypatch.setattr(finite, "_CHUNK_BYTES", 1 << 12)
    save_file({"w": torch.zeros(1 << 20, dtype=torch.uint8).view(dtype)}, tmp_path / "m.safetensors")
    name = {torch.bfloat16: "BF16", torch.float32: "F32", torch.float64: "F64", torch.float8_e5m2: "F8_E5M2"}[dtype]
    tensors = {"w": TensorInfo(name, ((1 << 20) // dtype.itemsize,), "m.safetensors")}
    info = CheckpointInfo(tmp_path, {}, "LlamaForCausalLM", 1, 4, 4, None, tensors, {}, "plain", 0, tied=False)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        check_finite(info)
    events = sorted(profiled.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    held = np.cumsum([event.nbytes() for event in events if event.name() == "[memory]"])
    assert 1 << 12 <= held.max() - (tmp_path / "m.safetensors").stat().st_size <= 3 << 12
