"""Calibration text and recipes for tiny models."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file

from app.models.checkpoint import inspect
from app.recipes.base import Calibrated
from app.recipes.recipe import Recipe
from workers.surgery.calibration_text import CalibrationText
from workers.surgery.modified import Modified
from workers.surgery.recipe import apply
from workers.surgery.store import CheckpointStore

RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)
RTN: dict[str, Any] = {"type": "quantize.rtn", "bits": 3, "group_size": 32}
PRUNE: dict[str, Any] = {"type": "prune.magnitude", "sparsity": 0.5, "scope": "row"}


def windows(count: int = 16, length: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.randint(2, 320, (count, length), generator=torch.Generator().manual_seed(seed))


def text(
    count: int = 16, length: int = 32, ordinary_V: torch.Tensor | None = None
) -> Callable[[Calibrated], CalibrationText]:
    tokens_NL = windows(count, length)
    return lambda _: CalibrationText(tokens_NL, f"{count:032x}{length:032x}", 1, count, ordinary_V)


def repair(rank: int = 4, **options: Any) -> dict[str, Any]:
    return {"type": "repair.lowrank", "rank": rank, "block_epochs": 0, "distill_steps": 0} | options


def operate(folder: Path, store: Path, *steps: dict[str, Any], **options: Any) -> Modified:
    options = {"calibration": text()} | options
    return apply(inspect(folder), RECIPE.validate_python(steps), store=CheckpointStore(store, 10**9), **options)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found
