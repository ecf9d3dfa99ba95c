from typing import Any

import pytest
from pydantic import TypeAdapter

from app.contracts.recipe import Recipe
from app.models.training import DISTILL_TOKENS, RECOVERY_TOKENS, trained_seconds, trained_tokens
from workers.mitigation.gradient_pruning import recovery
from workers.mitigation.repair import distill

RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)
TEXT = {"calibration_windows": 10, "calibration_window": 100}


@pytest.mark.parametrize(
    ("step", "tokens", "seconds"),
    [
        ({"type": "quantize.rtn", "bits": 4}, 0, 0),
        ({"type": "quantize.gptq", "bits": 4, **TEXT}, 0, 0),
        # blocks three times, and steps of 1,024 tokens
        ({"type": "repair.lowrank", "rank": 4, **TEXT}, 3 * 1000 + 60 * 1024, 0),
        ({"type": "repair.lowrank", "rank": 4, "block_epochs": 0, "distill_steps": 0, **TEXT}, 0, 0),
        ({"type": "repair.lowrank", "rank": 4, "block_epochs": 1, "distill_s": 30.0, **TEXT}, 1000, 30),
        # a step is one window at least
        (
            {"type": "repair.lowrank", "rank": 4, "block_epochs": 0, "distill_steps": 2, "calibration_window": 4096},
            2 * 4096,
            0,
        ),
        # four passes of gradients, six times over the text
        ({"type": "prune.gradient", "sparsity": 0.5, **TEXT}, 10 * 1000, 0),
        ({"type": "prune.gradient", "sparsity": 0.5, "reconstruct": False, "passes": 2, **TEXT}, 2 * 1000, 0),
        ({"type": "prune.gradient", "sparsity": 0.5, "recovery_s": 600.0, **TEXT}, 10 * 1000, 600),
        ({"type": "prune.gradient", "sparsity": 0.5, "recovery_steps": 7, **TEXT}, 10 * 1000 + 7 * 512, 0),
        ({"type": "quantize.dynamic", "bits": 4, "tuning_steps": 5, **TEXT}, 5 * 100, 0),
        ({"type": "quantize.dynamic", "bits": 4, "block_epochs": 2, "tuning_steps": 5, **TEXT}, 2 * 1000 + 5 * 100, 0),
    ],
)
def test_what_a_step_trains_is_counted(step: dict[str, Any], tokens: int, seconds: float) -> None:
    (parsed,) = RECIPE.validate_python([step])
    assert (trained_tokens(parsed), trained_seconds(parsed)) == (tokens, seconds)


def test_steps_are_as_long_as_the_workers() -> None:
    """The front end may not import these."""
    assert (DISTILL_TOKENS, RECOVERY_TOKENS) == (distill.STEP_TOKENS, recovery.STEP_TOKENS)
