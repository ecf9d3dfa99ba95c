"""Calibration text and recipes for tiny models."""

import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file

from app.models.checkpoint import inspect
from app.recipes.recipe import Recipe
from workers.surgery.calibration_text import CalibrationText
from workers.surgery.recipe import apply
from workers.surgery.store import CheckpointStore

RECIPE = TypeAdapter(Recipe)
RTN = {"type": "quantize.rtn", "bits": 3, "group_size": 32}
PRUNE = {"type": "prune.magnitude", "sparsity": 0.5, "scope": "row"}


def windows(count=16, length=32, seed=0):
    return torch.randint(2, 320, (count, length), generator=torch.Generator().manual_seed(seed))


def text(count=16, length=32, ordinary_V=None):
    tokens_NL = windows(count, length)
    return lambda _: CalibrationText(tokens_NL, f"{count:032x}{length:032x}", 1, count, ordinary_V)


def repair(rank=4, **options):
    return {"type": "repair.lowrank", "rank": rank, "block_epochs": 0, "distill_steps": 0} | options


def operate(folder, store, *steps, **options):
    options = {"calibration": text()} | options
    return apply(
        inspect(folder), RECIPE.validate_python(steps), device="cpu", store=CheckpointStore(store, 10**9), **options
    )


def weights(folder):
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found
