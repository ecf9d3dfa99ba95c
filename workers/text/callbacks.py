"""How a long step of this room shows how far it is, and learns that it should stop.

Both are what a job's context offers (`JobContext.progress`, `JobContext.check_cancelled`); nothing else of a job is
known here.
"""

from collections.abc import Callable

# (phase, done, total); total 0 while it is not known.
Progress = Callable[[str, int, int], None]
# Returns at once, or raises what ends the job.
CheckCancelled = Callable[[], None]


def no_progress(_phase: str, _done: int, _total: int) -> None:
    """Tells nobody."""


def never_cancelled() -> None:
    """Goes on."""
