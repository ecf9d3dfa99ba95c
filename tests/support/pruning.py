"""What tests of pruning share: recipes on tiny models, their text, their weights, and a forward by transformers."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM

from app.models.checkpoint import inspect
from app.recipes.base import Calibrated
from app.recipes.recipe import Recipe
from tests.support.attention import attention_of
from tests.support.tiny import VOCABULARY
from workers.surgery.calibration_text import CalibrationText
from workers.surgery.modified import Modified
from workers.surgery.recipe import apply
from workers.surgery.store import CheckpointStore

RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)
TOKENS_NL = torch.randint(0, VOCABULARY, (6, 48), generator=torch.Generator().manual_seed(7))
PARTS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def calibration(step: Calibrated) -> CalibrationText:
    """Six windows of 48 random tokens, whatever the step asks for."""
    return CalibrationText(TOKENS_NL, "text", 6, 6)


def operate(folder: Path, store: CheckpointStore, *steps: dict[str, Any], **options: Any) -> Modified:
    """The recipe applied, with the text above."""
    options = {"calibration": calibration} | options
    return apply(inspect(folder), RECIPE.validate_python(steps), device="cpu", store=store, **options)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint."""
    found: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


def linears(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The linear layers of the decoder among them."""
    return {name: one for name, one in tensors.items() if name.endswith("_proj.weight")}


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    """Changes the tensors of a checkpoint of one file, in place."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


def load(folder: Path, dtype: torch.dtype = torch.bfloat16, *, attention: str | None = None) -> Any:
    """transformers' model, by default with the attention that the walk uses."""
    used = attention or attention_of(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation=used)
    return model.eval()


@torch.no_grad()
def inputs_of(model: Any, module: str) -> torch.Tensor:
    """(T, I) float64 inputs of one linear layer over the text."""
    seen: list[torch.Tensor] = []
    handle = model.get_submodule(module).register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    try:
        model(TOKENS_NL)
    finally:
        handle.remove()
    return seen[0].reshape(-1, seen[0].shape[-1]).double()


def compressor(method: str, file: str) -> ModuleType:
    """One file of llm-compressor, without the six seconds that importing all of it takes."""
    package = importlib.util.find_spec("llmcompressor")
    assert package is not None
    assert package.origin is not None
    path = Path(package.origin).parent / "modifiers" / "pruning" / method / f"{file}.py"
    spec = importlib.util.spec_from_file_location(f"oracle_{file}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def half_pruned(seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Linear:
    """A linear layer of 16 inputs, every other column of which is zero."""
    torch.manual_seed(seed)
    one = nn.Linear(16, 8, bias=False, dtype=dtype)
    with torch.no_grad():
        one.weight[:, ::2] = 0
    return one.requires_grad_(False)
