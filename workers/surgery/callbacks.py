"""How a long piece of surgery shows how far it is, asks whether to go on, and asks for memory."""

from collections.abc import Callable, Sequence

from app.models.checkpoint import CheckpointInfo
from app.recipes.base import Step

# takes phase, done, total
Progress = Callable[[str, int, int], None]
# takes a line for the job's log
Log = Callable[[str], None]
# raises where the work is to stop
CheckCancelled = Callable[[], None]
# takes what steps change, the reference, and the steps; raises if the device has no room for what they hold there
MakeRoom = Callable[[CheckpointInfo, CheckpointInfo, Sequence[Step]], None]


def no_progress(_phase: str, _done: int, _total: int) -> None:
    """Tells nobody."""


def never_cancelled() -> None:
    """Always goes on."""


def room_enough(_source: CheckpointInfo, _reference: CheckpointInfo, _steps: Sequence[Step]) -> None:
    """Nothing else is on the device."""
