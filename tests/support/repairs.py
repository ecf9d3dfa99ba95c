"""Random PEFT LoRAs of checkpoints, and transformers with them merged in float32: the oracle of a served repair."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from app.models.adapters import CONFIG, WEIGHTS
from app.models.checkpoint import inspect

Factors = dict[str, tuple[torch.Tensor, torch.Tensor]]
PARTS = ("q_proj", "k_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def random_factors(checkpoint: Path, *, parts: tuple[str, ...] = PARTS, ranks: tuple[int, ...] = (2, 5, 3)) -> Factors:
    """Module → (A, B), large enough to change what a model says. Ranks differ; modules that `parts` leaves out have
    none."""
    generator = torch.Generator().manual_seed(0)
    modules = {name.removesuffix(".weight"): one.shape for name, one in inspect(checkpoint).tensors.items()}
    chosen = sorted(module for module in modules if module.rpartition(".")[2] in parts)

    def normal(*size: int) -> torch.Tensor:
        return (torch.randn(*size, generator=generator) * 0.1).to(torch.bfloat16)

    found = {}
    for index, module in enumerate(chosen):
        rank, (outputs, inputs) = ranks[index % len(ranks)], modules[module]
        found[module] = (normal(rank, inputs), normal(outputs, rank))
    return found


def save_adapter(folder: Path, factors: Factors, *, scale: float) -> Path:
    """The factors as PEFT's files, with one scale for all modules."""
    folder.mkdir(parents=True)
    config = {
        "peft_type": "LORA",
        "r": 4,
        "lora_alpha": 4 * scale,
        "alpha_pattern": {module.replace(".", r"\."): len(a) * scale for module, (a, _) in factors.items()},
        "target_modules": sorted(factors),
    }
    (folder / CONFIG).write_text(json.dumps(config))
    tensors = {}
    for module, (a, b) in factors.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = a
        tensors[f"base_model.model.{module}.lora_B.weight"] = b
    save_file(tensors, folder / WEIGHTS)
    return folder


def merge(model: Any, factors: Factors, *, scale: float) -> Any:
    """The model of transformers with W + s · B A in place of W."""
    for module, (a, b) in factors.items():
        weight = model.get_submodule(module).weight
        with torch.no_grad():
            weight += (scale * b.double() @ a.double()).to(weight.dtype)
    return model
