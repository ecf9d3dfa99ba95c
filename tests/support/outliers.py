"""Tiny checkpoints with outlier channels, as trained models have them: what scaling channels is for."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def with_outliers(folder: Path) -> Path:
    """Raises six channels of each layer norm 12-fold and the projections 3-fold, in place. Returns the folder."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    draw = torch.Generator().manual_seed(1)
    for name, tensor in tensors.items():
        if name.endswith("layernorm.weight"):
            tensor[torch.randperm(len(tensor), generator=draw)[:6]] *= 12
        elif name.endswith("_proj.weight"):
            tensor.mul_(3)
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


def loud(tensors: dict[str, torch.Tensor]) -> None:
    """Norms before layers let every sixteenth channel through as 20, in place."""
    norms = ("input_layernorm.weight", "post_attention_layernorm.weight", "pre_feedforward_layernorm.weight")
    for name, tensor in tensors.items():
        if name.endswith(norms):
            tensor[::16] = 20.0
