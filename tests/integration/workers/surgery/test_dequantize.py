"""The oracle is numpy on the packed tensors, and the forward pass of the packed model in transformers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import inspect
from app.recipes.quantize import QuantizeRtn
from tests.support.copies import edit_json
from tests.support.packed import make_packed
from tests.support.refusals import refused
from workers.surgery.dequantize import dequantize
from workers.surgery.recipe import apply
from workers.surgery.store import CheckpointStore

Tiny = Callable[..., Path]
Packed = Callable[..., Path]
NAMES = {"W8A8": "w8a8", "FP8": "fp8", "W4A16": "w4a16", "W4A16-ASYM": "w4a16", "W8A16": "w8a16"}


@pytest.fixture(scope="module")
def packed(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Packed:
    root = tmp_path_factory.mktemp("packed")
    made: dict[str, Path] = {}

    def make(scheme: str, kind: str = "llama") -> Path:
        name = f"{kind}-{scheme}"
        if name not in made:
            made[name] = make_packed(tiny(kind), root / name, scheme, group_size=32)
        return made[name]

    return make


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "store", 10**9)


def by_hand(tensors: dict[str, torch.Tensor], module: str, bits: int) -> np.ndarray:
    """Codes times scales in float64."""
    scale = tensors[f"{module}.weight_scale"].double().numpy()
    if f"{module}.weight" in tensors:
        codes = tensors[f"{module}.weight"].double().numpy()
    else:
        outputs, inputs = tensors[f"{module}.weight_shape"].tolist()
        words = tensors[f"{module}.weight_packed"].numpy().view(np.uint32)
        parts = [(words >> (bits * place)) & (2**bits - 1) for place in range(32 // bits)]
        codes = np.stack(parts, axis=-1).reshape(outputs, -1)[:, :inputs].astype(np.float64) - 2 ** (bits - 1)
    return codes * np.repeat(scale, codes.shape[1] // scale.shape[1], axis=1)


@pytest.mark.parametrize("scheme", ["W8A8", "FP8", "W4A16", "W8A16"])
def test_weights_are_codes_times_scales(packed: Packed, tiny: Tiny, store: CheckpointStore, scheme: str) -> None:
    info = inspect(packed(scheme))
    assert info.scheme == NAMES[scheme]
    before, original = load_file(info.path / "model.safetensors"), load_file(tiny() / "model.safetensors")
    with dequantize(info, device="cpu", store=store) as entry:
        after = load_file(entry.path / "model.safetensors")
        plain = inspect(entry.path)
    assert (plain.scheme, plain.quantization, plain.tied) == ("bf16", None, True)
    assert after.keys() == original.keys()
    for name in after:
        module = name.removesuffix(".weight")
        if f"{module}.weight_scale" not in before:
            assert torch.equal(after[name], original[name])
            continue
        expected = by_hand(before, module, 4 if scheme == "W4A16" else 8)
        assert torch.equal(after[name], torch.from_numpy(expected).to(torch.bfloat16)), name


def test_zero_points_count(packed: Packed, tiny: Tiny, store: CheckpointStore) -> None:
    original = load_file(tiny() / "model.safetensors")
    with dequantize(inspect(packed("W4A16-ASYM")), device="cpu", store=store) as entry:
        after = load_file(entry.path / "model.safetensors")
    for name, weight in original.items():
        if name.endswith("_proj.weight"):
            groups = weight.float().reshape(-1, 32)
            step = (groups.amax(1) - groups.amin(1)) / 15
            moved = (after[name].float().reshape(-1, 32) - groups).abs().amax(1)
            assert bool((moved <= step * 0.6 + 0.02).all()), name  # half a step, and bf16 scales


def test_the_plain_model_computes_what_the_packed_one_does(packed: Packed, store: CheckpointStore) -> None:
    from transformers import AutoModelForCausalLM

    folder = packed("W4A16")
    tokens = torch.arange(2, 40).reshape(1, -1)
    with dequantize(inspect(folder), device="cpu", store=store) as entry, torch.no_grad():
        plain = AutoModelForCausalLM.from_pretrained(entry.path, dtype=torch.bfloat16)(tokens).logits
    with torch.no_grad():
        other = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)(tokens).logits
    assert torch.equal(plain, other)


@pytest.mark.parametrize("kind", ["qwen2", "gemma2", "mixtral"])
def test_other_architectures_are_unpacked_whole(packed: Packed, store: CheckpointStore, kind: str) -> None:
    info = inspect(packed("W8A8", kind))
    with dequantize(info, device="cpu", store=store) as entry:
        plain = inspect(entry.path)
        assert plain.scheme == "bf16"
        assert plain.parameters == info.parameters
        assert {tensor.dtype for tensor in plain.tensors.values()} == {"BF16"}


def test_it_is_made_once_and_can_be_cut_into_shards(packed: Packed, store: CheckpointStore) -> None:
    info = inspect(packed("W8A8"))
    told: list[tuple[str, int, int]] = []
    with dequantize(
        info, device="cpu", store=store, progress=lambda *step: told.append(step), shard_bytes=50_000
    ) as first:
        assert first.built
        assert len(inspect(first.path).files) > 3
    assert told[-1] == ("dequantize", 29, 29)
    with dequantize(info, device="cpu", store=store) as second:
        assert not second.built


def test_a_scale_that_is_no_number_is_found(packed: Packed, store: CheckpointStore, tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(packed("W4A16"), tmp_path / "broken"))
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight_scale"][3, 1] = float("nan")
    save_file(tensors, folder / "model.safetensors")
    with refused(ErrorCode.CHECKPOINT_NOT_FINITE) as caught:
        dequantize(inspect(folder), device="cpu", store=store)
    assert "model.layers.0.mlp.up_proj.weight_scale" in caught.value.detail
    assert store.keys == ()


def test_a_recipe_on_a_packed_checkpoint_is_refused(packed: Packed, store: CheckpointStore) -> None:
    step = QuantizeRtn(type="quantize.rtn", bits=4, group_size=32)
    with refused(ErrorCode.RECIPE_NOT_APPLICABLE, "/candidate/recipe"):
        apply(inspect(packed("W8A8")), (step,), device="cpu", store=store)


def test_an_unknown_packing_is_refused(packed: Packed, store: CheckpointStore, tmp_path: Path) -> None:
    import json
    import shutil

    folder = Path(shutil.copytree(packed("W8A8"), tmp_path / "other"))
    quantization = json.loads((folder / "config.json").read_text())["quantization_config"]
    quantization["config_groups"]["group_0"]["format"] = quantization["format"] = "nvfp4-pack-quantized"
    edit_json(folder / "config.json", quantization_config=quantization)
    with refused(ErrorCode.CHECKPOINT_UNSUPPORTED):
        dequantize(inspect(folder), device="cpu", store=store)
    quantization["config_groups"]["group_0"] |= {"format": "int-quantized", "targets": ["re:.*nothing.*"]}
    edit_json(folder / "config.json", quantization_config=quantization)
    with pytest.raises(HemostatError, match="belongs to no group"):
        dequantize(inspect(folder), device="cpu", store=store)


def test_a_plain_checkpoint_is_plain_already(tiny: Tiny, store: CheckpointStore) -> None:
    with refused(ErrorCode.RECIPE_NOT_APPLICABLE):
        dequantize(inspect(tiny()), device="cpu", store=store)
