import json

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import AutoModelForCausalLM

from tests.unit.workers.mitigation.repair.support import PRUNE, RTN, operate, repair, weights, windows
from workers.mitigation.repair.adapter import Adapted, bits_of, export, merged, stored
from workers.mitigation.repair.closed_form import Factors


def factors(outputs, inputs, rank, seed=0):
    draws = torch.Generator().manual_seed(seed)
    return Factors(
        torch.randn(outputs, rank, generator=draws) / 10,
        torch.randn(rank, inputs, generator=draws) / 10,
        torch.zeros(rank),
    )


def test_beside_the_layer_and_merged_are_the_same_function():
    base = nn.Linear(12, 8).requires_grad_(False)
    one = stored(factors(8, 12, 3))
    x = torch.randn(2, 5, 12)
    adapted = Adapted(base, one)
    expected = x @ merged(base.weight, one).T + base.bias
    torch.testing.assert_close(adapted(x), expected)
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert trained == {"up_OR", "down_RI"}


def test_the_adapters_bits_come_on_top():
    # 16 · 4 · (32 + 64) numbers' bits over 32 · 64 weights
    assert bits_of((32, 64), 4, 4.5) == 4.5 + 16 * 4 * 96 / 2048
    assert bits_of((32, 64), 0, 4.5) == 4.5


def test_modules_of_different_rank_are_loaded_by_peft_as_they_are(tiny, tmp_path):
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


def beside(base, repaired):
    """PEFT's model of a checkpoint with the adapter of a repair, and what the checkpoint held."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    return PeftModel.from_pretrained(model, str(repaired.path / "adapter")), before


def holds_what_peft_merges(repaired, model):
    state = model.merge_and_unload().state_dict()
    for name, weight in weights(repaired.path).items():
        assert torch.equal(state[name].to(weight.dtype), weight), name
    return state


@pytest.mark.parametrize(("kind", "allocation"), [("llama", "uniform"), ("qwen2", "nats"), ("gemma2", "nats")])
def test_peft_on_the_wounded_checkpoint_is_the_merged_checkpoint(tiny, shared, kind, allocation):
    with (
        operate(tiny(kind), shared.root, RTN) as wounded,
        operate(tiny(kind), shared.root, RTN, repair(allocation=allocation)) as repaired,
    ):
        model, _ = beside(wounded.path, repaired)
        whole = AutoModelForCausalLM.from_pretrained(repaired.path, dtype=torch.float32)
        with torch.no_grad():
            unmerged, merged_ = (one(input_ids=windows(2, 16)).logits for one in (model, whole))
        # merged weights are rounded to bf16
        assert float((merged_ - unmerged).norm() / unmerged.norm()) < 0.02
        holds_what_peft_merges(repaired, model)
        config = json.loads((repaired.path / "adapter" / "adapter_config.json").read_text())
        assert config["r"] == repaired.manifest.steps[-1].figures["rank_most"]


@pytest.mark.parametrize(
    "wound", [PRUNE, {"type": "prune.layers", "layers": [1]}, {"type": "prune.channels", "ratio": 0.25}]
)
def test_peft_loads_what_repairs_any_wound(tiny, shared, wound):
    """Also where the wounded checkpoint has fewer layers, or narrower ones, than the reference."""
    with (
        operate(tiny(), shared.root, wound) as wounded,
        operate(tiny(), shared.root, wound, repair(distill_steps=2)) as repaired,
    ):
        model, before = beside(wounded.path, repaired)
        state = holds_what_peft_merges(repaired, model)
        assert any(not torch.equal(state[name], weight) for name, weight in before.items())
