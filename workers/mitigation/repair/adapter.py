"""A linear layer with the product of two thin matrices beside it, as LoRA has it (Hu et al., arXiv 2106.09685).

It is merged into the weight, or becomes a folder that PEFT and vLLM load.

The adapter's numbers are bf16 wherever they are stored, so what is merged is what is exported.

Names: O outputs, I inputs, R rank, N windows, L tokens.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from workers.mitigation.repair.closed_form import Factors
from workers.products import projected
from workers.surgery.safetensors_writer import Planned, ShardWriter

STORED = torch.bfloat16


class Adapted(nn.Module):
    """y = W x + b + U (V x): the frozen layer as it is, and float32 factors that are trained, used in its dtype."""

    def __init__(self, base: nn.Linear, factors: Factors) -> None:
        super().__init__()
        self.base = base
        self.up_OR = nn.Parameter(factors.up_OR.clone())
        self.down_RI = nn.Parameter(factors.down_RI.clone())

    def factors(self) -> tuple[nn.Parameter, nn.Parameter]:
        """What is trained."""
        return self.up_OR, self.down_RI

    def forward(self, x_NLI: torch.Tensor) -> torch.Tensor:
        """(N, L, O)."""
        down_NLR = projected(x_NLI, self.down_RI.to(x_NLI.dtype))
        found: torch.Tensor = self.base(x_NLI) + projected(down_NLR, self.up_OR.to(x_NLI.dtype))
        return found


def stored(factors: Factors) -> Factors:
    """As they are stored: rounded to bf16."""
    return Factors(factors.up_OR.to(STORED).float(), factors.down_RI.to(STORED).float(), factors.gains_R)


def merged(weight_OI: torch.Tensor, factors: Factors) -> torch.Tensor:
    """W + U V in the weight's dtype; computed in float32."""
    rounded = stored(factors)
    return (weight_OI.float() + rounded.product()).to(weight_OI.dtype)


def bits_of(shape: tuple[int, ...], rank: int, before: float) -> float:
    """Bits per weight with the adapter beside it: what the weight takes, and 16 bits for each of R·(O + I) numbers."""
    outputs, inputs = shape
    return before + 16 * rank * (outputs + inputs) / (outputs * inputs)


def export(folder: Path, factors: Mapping[str, Factors], *, base: str) -> None:
    """Writes a PEFT LoRA: adapter_config.json and adapter_model.safetensors.

    `factors`: by the weight's tensor name; those of rank 0 are left out. `base` is what the adapter goes on, for people
    to read. Every module has a scale of 1 (alpha = rank), also where ranks differ. Raises OSError if the disk
    refuses.
    """
    folder.mkdir(parents=True, exist_ok=True)
    used = {name.removesuffix(".weight"): one for name, one in factors.items() if one.rank}
    most = max((one.rank for one in used.values()), default=1)
    differing = {module: one.rank for module, one in used.items() if one.rank != most}
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": most,
        "lora_alpha": most,
        "rank_pattern": {_exactly(module): rank for module, rank in differing.items()},
        "alpha_pattern": {_exactly(module): rank for module, rank in differing.items()},
        # Whole paths: a bare name would also catch modules that have no adapter.
        "target_modules": sorted(used),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    tensors = {}
    for module, one in used.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = one.down_RI.to(STORED).contiguous()
        tensors[f"base_model.model.{module}.lora_B.weight"] = one.up_OR.to(STORED).contiguous()
    planned = [Planned(name, "BF16", tuple(tensor.shape)) for name, tensor in sorted(tensors.items())]
    # not the library's `save_file`, whose error of a full disk is no OSError
    with ShardWriter(folder / "adapter_model.safetensors", planned) as writer:
        for entry in planned:
            writer.write(entry.name, tensors[entry.name])


def _exactly(module: str) -> str:
    """A pattern, as PEFT and vLLM match it, that means this module."""
    return module.replace(".", r"\.")
