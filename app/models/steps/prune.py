"""Pruning: patterns divide."""

from app.contracts.recipe import Step
from app.models.checkpoint import CheckpointInfo
from app.models.modules import Weight, check_step


def check(info: CheckpointInfo, step: Step, pointer: str) -> list[Weight]:
    """The weights that the step addresses. Raises what `check_step` raises."""
    return check_step(info, step, pointer=pointer)
