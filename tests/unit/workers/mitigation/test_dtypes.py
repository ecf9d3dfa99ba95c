"""Every mitigation on checkpoints of every plain dtype."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.unit.workers.mitigation.repair.support import RTN, operate

DTYPES = {"float16": torch.float16, "float32": torch.float32}
STEPS = {
    "prune": [{"type": "prune.gradient", "sparsity": 0.5, "passes": 2, "reconstruct_epochs": 1, "recovery_steps": 2}],
    "dynamic": [{"type": "quantize.dynamic", "bits": 4.5, "mixed": True, "group_size": 32, "block_epochs": 1}],
    "repair": [RTN, {"type": "repair.lowrank", "rank": 4, "block_epochs": 0, "distill_steps": 2}],
}


def stored_as(folder, dtype):
    """The same checkpoint in another dtype."""
    file = folder / "model.safetensors"
    save_file({name: tensor.to(DTYPES[dtype]) for name, tensor in load_file(file).items()}, file, {"format": "pt"})
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"bfloat16"', f'"{dtype}"'))
    return folder


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("recipe", STEPS)
def test_it_works_and_the_result_keeps_the_dtype(copy, tmp_path, dtype, recipe):
    folder = stored_as(copy("llama", num_hidden_layers=2), dtype)
    with operate(folder, tmp_path / "store", *STEPS[recipe]) as modified:
        before = load_file(folder / "model.safetensors")
        after = load_file(modified.path / "model.safetensors")
    for name, tensor in after.items():
        assert tensor.dtype == DTYPES[dtype]
        assert bool(torch.isfinite(tensor).all())
        assert torch.equal(tensor, before[name]) == (not name.endswith("_proj.weight")) or "norm" in name, name
