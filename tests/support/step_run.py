"""What a step is given that finds a checkpoint."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.models.checkpoint import inspect
from app.models.modules import select
from tests.support.checked import RECIPE
from workers.surgery.callbacks import never_cancelled, no_progress
from workers.surgery.reading import open_tensors
from workers.surgery.step_run import StepRun


@contextmanager
def step_run(
    source: Path, scratch: Path, step: dict[str, Any], *, base: Path | None = None, **given: Any
) -> Iterator[StepRun]:
    """The run of one step, without text; `base`: what the recipe began with, which is also the reference."""
    info, began = inspect(source), inspect(base or source)
    (model,) = RECIPE.validate_python([step])
    scratch.mkdir()
    with open_tensors(info, "cpu") as reader, open_tensors(began, "cpu") as base_reader:
        common: dict[str, Any] = {
            "base": began,
            "reference": began,
            "step": model,
            "index": 0,
            "weights": (),
            "calibration": None,
            "reader": reader,
            "base_reader": base_reader,
            "scratch": scratch,
            "before": {},
            "progress": no_progress,
            "check_cancelled": never_cancelled,
        }
        yield StepRun(info, **(common | given))


def selected(source: Path, step: dict[str, Any]) -> Any:
    """The weights that a step addresses."""
    (model,) = RECIPE.validate_python([step])
    return select(inspect(source), model)
