"""Adapters merged: any linear layer may be changed; what an adapter changes is looked at in `others`."""

from app.models.checkpoint import CheckpointInfo
from app.models.modules import Weight, select
from app.recipes.base import Step


def check(info: CheckpointInfo, step: Step, pointer: str) -> list[Weight]:
    """The weights that the adapter may change. Raises what `select` raises."""
    return select(info, step, pointer=pointer)
