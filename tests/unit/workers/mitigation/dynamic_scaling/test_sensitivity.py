"""What changing weights of a layer costs, against transformers' own forward pass."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from app.models.checkpoint import inspect
from tests.support.attention import attention_of
from workers.mitigation.dynamic_scaling.sensitivity import Measured
from workers.mitigation.gradients import Tape
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.callbacks import never_cancelled
from workers.surgery.quantize_rtn import quantize
from workers.surgery.reading import open_tensors

TOKENS = torch.randint(0, 300, (2, 24), generator=torch.Generator().manual_seed(0))
UNITS = (("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), ("mlp.down_proj",))


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2"])
def test_a_change_costs_the_divergence_that_transformers_finds(tiny, tmp_path, kind, layer):
    folder = tiny(kind, num_hidden_layers=2)
    info = inspect(folder)
    with open_tensors(info, "cpu") as reader:
        changes = []
        for unit in UNITS:
            for bits in (3, 4, 8):
                names = [f"model.layers.{layer}.{name}.weight" for name in unit]
                weights = [reader.read(name).float() for name in names]
                rounded = [quantize(one, bits=bits, group_size=32, symmetric=False) for one in weights]
                changes.append(dict(zip(names, rounded, strict=True)))
        tape = Tape(Skeleton(info, reader.read, device="cpu", dtype=torch.float32), TOKENS, tmp_path)
        measured = Measured(tape, never_cancelled)
        ours = measured.layer(layer, iter(changes))
        assert measured.layer(layer, [{}]) == pytest.approx([0], abs=1e-6), "the layer is what it was"
    theirs = []
    attention = attention_of(folder)
    with torch.no_grad():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=attention)
        before = model(TOKENS).logits.double().log_softmax(-1)
        for change in changes:
            old = {name: model.get_parameter(name).clone() for name in change}
            for name, weight_OI in change.items():
                model.get_parameter(name).copy_(weight_OI)
            after = model(TOKENS).logits.double().log_softmax(-1)
            theirs.append(float((before.exp() * (before - after)).sum(-1).mean()))
            for name, weight_OI in old.items():
                model.get_parameter(name).copy_(weight_OI)
    assert min(theirs) > 0
    assert ours == pytest.approx(theirs, rel=1e-2, abs=2e-7)
