"""Two models beside each other: what is packed, and the head in the dtype that the engine runs it in."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from app.models.checkpoint import CheckpointInfo, inspect
from workers.measuring.assemble import packed_reference, rounded
from workers.measuring.sides import Side, Sides

PACKED: dict[str, Any] = {"quant_method": "compressed-tensors"}


@pytest.fixture(scope="module")
def wide(tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float32 checkpoint whose weights no narrower dtype holds."""
    source, folder = tiny("llama"), tmp_path_factory.mktemp("wide")
    for file in source.iterdir():
        if file.suffix != ".safetensors":
            (folder / file.name).write_bytes(file.read_bytes())
    generator = torch.Generator().manual_seed(1)
    tensors = {
        name: tensor.float() * (1 + torch.rand(tensor.shape, generator=generator) / 512)
        for name, tensor in load_file(source / "model.safetensors").items()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def side(info: CheckpointInfo, alias: str = "tiny", **changes: Any) -> Side:
    return Side(alias, replace(info, **changes), "0", info.path)


def sides(reference: Side, candidate: Side) -> Sides:
    nothing: Any = None
    return Sides(reference, candidate, nothing, "bfloat16", "")


@pytest.mark.parametrize(
    ("reference", "candidate", "packed"),
    [
        (("bf16", None), ("bf16", None), False),
        (("f32", None), ("bf16", None), False),
        (("bf16", None), ("f16", None), False),
        (("f16", None), ("w4a16", PACKED), True),
        (("w4a16", PACKED), ("w8a8", PACKED), True),
        (("w4a16", PACKED), ("w4a16", PACKED), False),
        (("w4a16", PACKED), ("bf16", None), False),
    ],
)
def test_only_packed_weights_run_on_other_kernels(
    wide: Path,
    reference: tuple[str, dict[str, Any] | None],
    candidate: tuple[str, dict[str, Any] | None],
    packed: bool,
) -> None:
    one, other = (
        side(inspect(wide), scheme=scheme, quantization=quantization) for scheme, quantization in (reference, candidate)
    )
    assert sides(one, other).packed is packed
    told = packed_reference(sides(one, other))
    assert len(told) == (reference[1] is not None and candidate[1] is None)
    assert all((one.code, one.facts) == ("packed_reference", {"scheme": "w4a16"}) for one in told)


@pytest.mark.parametrize(
    ("dtype", "found"),
    [
        ("float32", torch.float32),
        ("float16", torch.float16),
        ("bfloat16", torch.bfloat16),
        ("auto", torch.bfloat16),
    ],
)
def test_the_head_has_the_digits_that_the_engine_s_has(wide: Path, dtype: str, found: torch.dtype) -> None:
    info = inspect(wide)
    name = "model.embed_tokens.weight" if info.tied else "lm_head.weight"
    stored = load_file(wide / "model.safetensors")[name]
    weight = Side("tiny", info, "0", wide, dtype).head.weight_VD
    assert weight.dtype == found
    assert torch.equal(weight, stored[: info.vocabulary].to(found))
    assert torch.equal(weight.float(), stored[: info.vocabulary]) is (dtype == "float32")


@pytest.mark.parametrize(
    ("stored", "run", "told"),
    [
        (("f32", "bf16"), "bfloat16", ["one"]),
        (("f16", "f32"), "bfloat16", ["other", "one"]),
        (("f32", "f16"), "float16", ["one"]),
        (("f32", "f16"), "float32", []),
        (("f16", "bf16"), "float16", []),
        (("bf16", "bf16"), "bfloat16", []),
    ],
)
def test_weights_that_the_engine_rounds_are_told(
    wide: Path, stored: tuple[str, str], run: str, told: list[str]
) -> None:
    info = inspect(wide)
    pair = sides(side(info, "one", scheme=stored[0]), side(info, "other", scheme=stored[1]))
    found = rounded(pair, run)
    assert [one.facts["model"] for one in found] == told
    assert all(one.facts["dtype"] == run for one in found)
