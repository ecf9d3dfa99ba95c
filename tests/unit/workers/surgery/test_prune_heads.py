"""The oracle: the old model with the columns of `o_proj` behind the groups that went at 0."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import inspect
from tests.support.copies import Copy
from tests.support.pruning import TOKENS_NL, inputs_of, load, operate, rewrite
from workers.surgery.store import CheckpointStore

Tiny = Callable[..., Path]
# Eight query heads in four groups.
WIDE: dict[str, Any] = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 8}
CASES = [("llama", {}), ("qwen2", {}), ("gemma2", {}), ("granite", {}), ("llama", {"model_type": "phi3"})]


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "store", 10**9)


def emptied(model: Any, gone: int) -> None:
    """Block by block the `gone` groups that add least to the attention's output are silenced."""
    for index in range(3):
        path = f"model.layers.{index}.self_attn.o_proj"
        x_TI, weight_OI = inputs_of(model, path), model.get_submodule(path).weight.data
        added = [(x_TI[:, i : i + 16] @ weight_OI[:, i : i + 16].double().T).square().sum() for i in range(0, 64, 16)]
        for group in torch.stack(added).argsort()[:gone].tolist():
            weight_OI[:, group * 16 : group * 16 + 16] = 0


def with_biases(folder: Path) -> Path:
    """Biases that are not 0, as trained models have."""

    def change(tensors: dict[str, torch.Tensor]) -> None:
        generator = torch.Generator().manual_seed(3)
        for name, tensor in tensors.items():
            if name.endswith(".bias"):
                tensors[name] = torch.randn(tensor.shape, generator=generator).to(tensor.dtype)

    return rewrite(folder, change)


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_the_smaller_model_is_the_old_one_without_these_heads(
    copy: Copy, store: CheckpointStore, kind: str, options: dict[str, Any]
) -> None:
    folder = with_biases(copy(kind, **WIDE, **options))
    with operate(folder, store, {"type": "prune.heads", "count": 4}) as modified:
        info, small = inspect(modified.path), load(modified.path, torch.float32)
        figures = modified.manifest.steps[0].figures
    assert (info.config["num_attention_heads"], info.config["num_key_value_heads"]) == (4, 2)
    assert info.config["head_dim"] == 8
    assert info.bytes < inspect(folder).bytes
    assert info.architecture == ("LlamaForCausalLM" if kind == "qwen2" else inspect(folder).architecture)
    judge = load(folder)
    emptied(judge, 2)
    expected = load(folder, torch.float32)
    for index in range(3):
        path = f"model.layers.{index}.self_attn.o_proj"
        expected.get_submodule(path).weight.data = judge.get_submodule(path).weight.data.float()
    with torch.no_grad():
        torch.testing.assert_close(small(TOKENS_NL).logits, expected(TOKENS_NL).logits, rtol=1e-4, atol=1e-4)
    assert figures["heads_per_layer"] == 4
    assert 0 < figures["energy_share_lost"] < 0.5


def test_a_share_is_whole_groups(tiny: Tiny, store: CheckpointStore) -> None:
    with operate(tiny(**WIDE), store, {"type": "prune.heads", "ratio": 0.4}) as one:
        assert inspect(one.path).config["num_key_value_heads"] == 2
    with operate(tiny(**WIDE), store, {"type": "prune.heads", "count": 4}) as other:
        assert other.fingerprint == one.fingerprint


def test_parts_go_one_after_the_other(tiny: Tiny, store: CheckpointStore) -> None:
    """Each step sees the smaller model that the one before left."""
    steps: list[dict[str, Any]] = [
        {"type": "prune.heads", "count": 4},
        {"type": "prune.channels", "count": 28},
        {"type": "prune.layers", "count": 1},
        {"type": "prune.wanda", "pattern": "2:4", "layers": [0, 1]},
        {"type": "quantize.rtn", "bits": 4, "group_size": 4},
    ]
    with operate(tiny(**WIDE), store, *steps) as modified:
        info = inspect(modified.path)
        config = info.config
        assert (config["num_attention_heads"], config["intermediate_size"], info.layers) == (4, 100, 2)
        assert modified.manifest.sparsity is not None
        assert modified.manifest.sparsity >= 0.5
        assert load(modified.path)(TOKENS_NL).logits.isfinite().all()
    late = {"type": "prune.wanda", "sparsity": 0.5, "layers": [2]}
    with pytest.raises(HemostatError, match="no layer 2") as caught:
        operate(tiny(**WIDE), store, *steps[:3], late)
    assert caught.value.code is ErrorCode.UNKNOWN_MODULE
    assert caught.value.pointer == "/candidate/recipe/3/layers/0"


def test_activations_that_are_no_numbers_are_refused(copy: Copy, store: CheckpointStore) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        name = "model.layers.1.self_attn.v_proj.weight"
        tensors[name] = torch.full_like(tensors[name], 1e38)

    with pytest.raises(HemostatError, match=r"layers\.1\.self_attn\.o_proj") as caught:
        operate(rewrite(copy("llama", **WIDE), change), store, {"type": "prune.heads", "count": 4})
    assert caught.value.code is ErrorCode.ACTIVATIONS_NOT_FINITE
