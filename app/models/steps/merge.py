"""Two checkpoints mixed: every tensor, unless layers or modules are named."""

from app.models.checkpoint import CheckpointInfo
from app.models.modules import Weight, select
from app.recipes.base import Step


def check(info: CheckpointInfo, step: Step, pointer: str) -> list[Weight]:
    """The weights that layers and modules name. Raises what `select` raises."""
    return select(info, step, pointer=pointer)
