"""What a layer's rounding costs, against transformers' own forward pass; what is predicted of it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from app.models.checkpoint import inspect
from workers.mitigation.dynamic_scaling.grids import Scheme
from workers.mitigation.dynamic_scaling.moments import sample
from workers.mitigation.dynamic_scaling.sensitivity import Measured, predicted
from workers.mitigation.gradients import Tape, fisher_of
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.blockwise.walk import Walk
from workers.surgery.callbacks import never_cancelled
from workers.surgery.quantize_grid import fit
from workers.surgery.reading import open_tensors

TOKENS = torch.randint(0, 300, (2, 24), generator=torch.Generator().manual_seed(0))
SCHEME = Scheme(4, 32, False)
NAMES = ("model.layers.1.self_attn.q_proj.weight", "model.layers.1.mlp.down_proj.weight")


def test_a_layers_cost_is_the_divergence_that_transformers_finds(tiny: Callable[..., Path], tmp_path: Path) -> None:
    folder = tiny("llama", num_hidden_layers=2)
    info = inspect(folder)
    with open_tensors(info) as reader:
        tape = Tape(Skeleton(info, reader.read, dtype=torch.float32), TOKENS, tmp_path)
        ours = Measured(tape, never_cancelled).layer(1, NAMES, SCHEME, None)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        before = model(TOKENS).logits.log_softmax(-1)
        for name in NAMES:
            weight = model.get_parameter(name)
            grid = fit(weight.data, bits=4, group_size=32, symmetric=False, dtype=torch.bfloat16)
            weight.data = grid.nearest(weight.data)
        after = model(TOKENS).logits.log_softmax(-1)
    theirs = float((before.exp() * (before - after)).sum(-1).mean())
    assert theirs > 0
    assert ours == pytest.approx(theirs, rel=1e-3)


def test_a_prediction_falls_with_every_bit_and_adds_up_over_layers(tiny: Callable[..., Path], tmp_path: Path) -> None:
    info = inspect(tiny("llama", num_hidden_layers=2))
    with open_tensors(info) as reader:
        found = fisher_of(info, reader.read, TOKENS, tmp_path, squares=False)
        fisher = {name: one.outputs_O for name, one in found.items()}
        walk = Walk(Skeleton(info, reader.read), TOKENS, tmp_path)
        block = next(walk.blocks())
        group = block.groups[0]
        inputs_TI = sample(block, (group,), 48)[0][group]
        costs = [predicted(block, group, inputs_TI, Scheme(bits, 32, False), fisher) for bits in (3, 4, 5, 6, 8)]
        alone = [predicted(block, (name,), inputs_TI, SCHEME, fisher) for name in group]
    assert len(group) == 3
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] > 0
    assert costs[1] == pytest.approx(sum(alone), rel=1e-5)
