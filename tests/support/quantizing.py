"""Quantization recipes on tiny models: applied, read again, run in transformers."""

from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from app.models.checkpoint import inspect
from app.recipes.recipe import Recipe
from tests.support.tiny import VOCABULARY
from workers.surgery.calibration_text import CalibrationText
from workers.surgery.modified import Modified
from workers.surgery.recipe import apply
from workers.surgery.store import CheckpointStore

RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)


def text(windows: int = 8, length: int = 64, seed: int = 0) -> CalibrationText:
    """Windows of random tokens of the tiny models' vocabulary."""
    drawn = torch.randint(0, VOCABULARY, (windows, length), generator=torch.Generator().manual_seed(seed))
    return CalibrationText(drawn, f"{windows} {length} {seed}", 1, windows)


def operate(
    folder: Path, store: CheckpointStore, *steps: dict[str, Any], seen: CalibrationText | None = None
) -> Modified:
    """A recipe applied, `seen` being the calibration text of every step."""
    given = seen or text()
    return apply(inspect(folder), RECIPE.validate_python(steps), device="cpu", store=store, calibration=lambda _: given)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint."""
    found: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


@torch.no_grad()
def logits(folder: Path, tokens_NL: torch.Tensor) -> torch.Tensor:
    """(N, L, V) of a checkpoint in float32."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    found: torch.Tensor = model(tokens_NL).logits
    return found


def divergence(reference: Path, candidate: Path, *, seed: int = 1, tokens_NL: torch.Tensor | None = None) -> float:
    """Mean KL(reference‖candidate) in nats over a text, by default a random one that no method has seen."""
    given_NL = text(4, 64, seed).tokens_NL if tokens_NL is None else tokens_NL
    one, other = (logits(folder, given_NL).log_softmax(-1) for folder in (reference, candidate))
    return float((one.exp() * (one - other)).sum(-1).mean())
