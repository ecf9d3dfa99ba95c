"""How a long piece of surgery shows how far it is and asks whether to go on."""

from collections.abc import Callable

# takes phase, done, total
Progress = Callable[[str, int, int], None]
# raises where the work is to stop
CheckCancelled = Callable[[], None]


def no_progress(_phase: str, _done: int, _total: int) -> None:
    """Tells nobody."""


def never_cancelled() -> None:
    """Always goes on."""
