import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM

from tests.unit.workers.mitigation.repair.support import PRUNE, RTN, operate, repair, weights, windows
from workers import products
from workers.mitigation.repair.adapter import Adapted, bits_of, export, merged, stored
from workers.mitigation.repair.closed_form import Factors


def factors(outputs: int, inputs: int, rank: int, seed: int = 0) -> Factors:
    draws = torch.Generator().manual_seed(seed)
    return Factors(
        torch.randn(outputs, rank, generator=draws) / 10,
        torch.randn(rank, inputs, generator=draws) / 10,
        torch.zeros(rank),
    )


def test_beside_the_layer_and_merged_are_the_same_function() -> None:
    base = nn.Linear(12, 8).requires_grad_(False)
    one = stored(factors(8, 12, 3))
    x = torch.randn(2, 5, 12)
    adapted = Adapted(base, one)
    expected = x @ merged(base.weight, one).T + base.bias
    torch.testing.assert_close(adapted(x), expected)
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert trained == {"up_OR", "down_RI"}


def test_factors_are_multiplied_in_float32_where_the_processor_lacks_the_product(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[torch.dtype] = []
    monkeypatch.setattr(products, "lacking", lambda dtype: dtype == torch.bfloat16)
    monkeypatch.setattr(products, "linear", lambda x, w: seen.append(x.dtype) or nn.functional.linear(x, w))
    base = nn.Linear(12, 8, dtype=torch.bfloat16).requires_grad_(False)
    found = Adapted(base, factors(8, 12, 3))(torch.randn(2, 5, 12).bfloat16())
    assert found.dtype == torch.bfloat16
    assert seen == [torch.float32, torch.float32]


def test_the_adapters_bits_come_on_top() -> None:
    # 16 · 4 · (32 + 64) numbers' bits over 32 · 64 weights
    assert bits_of((32, 64), 4, 4.5) == 4.5 + 16 * 4 * 96 / 2048
    assert bits_of((32, 64), 0, 4.5) == 4.5


def test_modules_of_different_rank_are_loaded_by_peft_as_they_are(tiny: Callable[..., Path], tmp_path: Path) -> None:
    folder = tiny("llama")
    names = {"model.layers.0.self_attn.q_proj": (64, 64, 3), "model.layers.2.mlp.down_proj": (64, 128, 7)}
    given = {f"{name}.weight": factors(*shape, seed=index) for index, (name, shape) in enumerate(names.items())}
    export(tmp_path / "adapter", given | {"model.layers.1.mlp.up_proj.weight": factors(128, 64, 0)}, base="it")
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    before = {name: weight.clone() for name, weight in base.state_dict().items()}
    after = PeftModel.from_pretrained(base, str(tmp_path / "adapter")).merge_and_unload().state_dict()
    changed = [name for name, weight in before.items() if not torch.equal(weight, after[name])]
    assert sorted(changed) == sorted(given)
    for name, one in given.items():
        torch.testing.assert_close(after[name], before[name] + stored(one).product())


def test_the_file_is_the_one_that_the_library_writes(tmp_path: Path) -> None:
    given = {"model.layers.2.mlp.down_proj.weight": factors(64, 128, 7), "a.weight": factors(3, 5, 1)}
    export(tmp_path, given, base="it")
    file = tmp_path / "adapter_model.safetensors"
    save_file(load_file(file), tmp_path / "theirs", metadata={"format": "pt"})
    assert file.read_bytes() == (tmp_path / "theirs").read_bytes()


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2"])
@pytest.mark.parametrize("allocation", ["uniform", "nats"])
def test_peft_on_the_wounded_checkpoint_is_the_merged_checkpoint(
    tiny: Callable[..., Path], tmp_path: Path, kind: str, allocation: str
) -> None:
    with (
        operate(tiny(kind), tmp_path / "store", RTN) as wounded,
        operate(tiny(kind), tmp_path / "store", RTN, repair(allocation=allocation)) as repaired,
    ):
        base = AutoModelForCausalLM.from_pretrained(wounded.path, dtype=torch.float32)
        beside = PeftModel.from_pretrained(base, str(repaired.path / "adapter"))
        tokens = windows(2, 16)
        with torch.no_grad():
            unmerged = beside(input_ids=tokens).logits
        state = beside.merge_and_unload().state_dict()
        after = weights(repaired.path)
        for name, weight in after.items():
            assert torch.equal(state[name].to(weight.dtype), weight), name
        whole = AutoModelForCausalLM.from_pretrained(repaired.path, dtype=torch.float32)
        with torch.no_grad():
            logits = whole(input_ids=tokens).logits
        # merged weights are rounded to bf16
        assert float((logits - unmerged).norm() / unmerged.norm()) < 0.02
        config = json.loads((repaired.path / "adapter" / "adapter_config.json").read_text())
        assert config["r"] == repaired.manifest.steps[-1].figures["rank_most"]


@pytest.mark.parametrize(
    "wound",
    [
        PRUNE,
        {"type": "prune.layers", "layers": [1]},
        {"type": "prune.channels", "ratio": 0.25},
        {"type": "lowrank.svd", "ratio": 0.3},
    ],
    ids=lambda wound: wound["type"],
)
def test_peft_loads_what_repairs_any_wound(tiny: Callable[..., Path], tmp_path: Path, wound: dict[str, Any]) -> None:
    """Also where the wounded checkpoint has fewer layers, or narrower ones, than the reference."""
    with (
        operate(tiny(), tmp_path / "store", wound) as wounded,
        operate(tiny(), tmp_path / "store", wound, repair(distill_steps=2)) as repaired,
    ):
        base = AutoModelForCausalLM.from_pretrained(wounded.path, dtype=torch.float32)
        before = {name: weight.clone() for name, weight in base.state_dict().items()}
        state = PeftModel.from_pretrained(base, str(repaired.path / "adapter")).merge_and_unload().state_dict()
        after = weights(repaired.path)
        for name, weight in after.items():
            assert torch.equal(state[name].to(weight.dtype), weight), name
        assert any(not torch.equal(state[name], weight) for name, weight in before.items())


def test_peft_on_the_weights_that_were_wounded_anew_is_the_merged_checkpoint(
    tiny: Callable[..., Path], tmp_path: Path
) -> None:
    with operate(tiny(), tmp_path / "store", RTN, repair(iterations=3)) as repaired:
        base = AutoModelForCausalLM.from_pretrained(repaired.path / "base", dtype=torch.float32)
        state = PeftModel.from_pretrained(base, str(repaired.path / "adapter")).merge_and_unload().state_dict()
        for name, weight in weights(repaired.path).items():
            assert torch.equal(state[name].to(weight.dtype), weight), name
