"""What each family of recipe steps demands of a checkpoint, and what the checkpoint is like after it: from shapes and
configuration alone, so that a recipe of any length is refused before a weight is read.

One module a family, named as in the step's type before the dot. It has `check(info, step, pointer)`, which returns the
weights that the step addresses or raises `HemostatError`, and may have `after(info, step)`, which returns what the
checkpoint will be; without it the checkpoint keeps its shape.
"""

from importlib import import_module
from typing import Protocol, cast

from app.contracts.recipe import Recipe, Step
from app.models.checkpoint import CheckpointInfo
from app.models.modules import Weight, check_step


class Rules(Protocol):
    """A family's module."""

    def check(self, info: CheckpointInfo, step: Step, pointer: str) -> list[Weight]:
        """The weights that the step addresses. Raises `HemostatError`, its pointer below `pointer`."""

    def after(self, info: CheckpointInfo, step: Step) -> CheckpointInfo:
        """What the checkpoint will be; its path is still the old one."""


# Families with demands of their own; the others take what `check_step` takes and keep every shape.
FAMILIES = frozenset({"lowrank", "prune", "quantize"})


def check_one(info: CheckpointInfo, step: Step, *, pointer: str) -> list[Weight]:
    """The weights that one step addresses in a checkpoint. Raises `HemostatError`."""
    rules = _rules(step)
    return check_step(info, step, pointer=pointer) if rules is None else rules.check(info, step, pointer)


def check_recipe(info: CheckpointInfo, recipe: Recipe, *, pointer: str) -> CheckpointInfo:
    """What the checkpoint will be after the recipe. Raises `HemostatError` for the first step that cannot be done."""
    for index, step in enumerate(recipe):
        check_one(info, step, pointer=f"{pointer}/{index}")
        rules = _rules(step)
        if rules is not None and hasattr(rules, "after"):
            info = rules.after(info, step)
    return info


def _rules(step: Step) -> Rules | None:
    family = str(getattr(step, "type", "")).partition(".")[0]
    return cast(Rules, import_module(f"{__name__}.{family}")) if family in FAMILIES else None
