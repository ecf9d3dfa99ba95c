"""What a queued job waits for, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from app.web.phases import in_words

Json = dict[str, Any]

SETTLE_S: Final = 4.0  # a worker that is free has taken it by then
_STEP: Final = 10  # percent; a finer change is not said


def turn(before: int, first: Sequence[Json], *, settled: bool = True) -> str:
    """How many jobs have their turn before one, and the `first` of them in the order of their turn.

    Where there is none, that it is next, once a free worker would have taken it; until then nothing.
    """
    if not before:
        return "it is next, and no worker takes it yet" if settled else ""
    named = ""
    if first:
        named = f"{first[0]['kind']} {first[0]['id']}, {_state(first[0])}"
        named += "".join(f", then {job['kind']} {job['id']}" for job in first[1:])
        named = f" ({named}{', …' if before > len(first) else ''})"
    return f"{before} job{'' if before == 1 else 's'} before it{named}"


def _state(job: Json) -> str:
    if job["status"] != "running":
        return str(job["status"])
    progress = job["progress"]
    if progress["phase"] == "queued":  # its worker has not got to a phase yet
        return "starting"
    return f"running: {in_words(progress['phase'])}{_percent(progress['done'], progress['total'])}"


def _percent(done: int, total: int) -> str:
    """` 40 %`, in whole tens, so that it changes seldom; nothing where the total is not known."""
    return f" {100 * done // total // _STEP * _STEP} %" if total else ""
