"""Lower scheduling priority, for a process that is to leave the cores to what serves requests beside it."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Final

import psutil

# Linux schedules the sessions of a desktop or of a plain host by groups (`man 7 sched`, autogroups): between two of
# them a thread's nice value says nothing, the group's does.
AUTOGROUP: Final = Path("/proc/self/autogroup")
# Of all that is not root the kernel takes one such value in a tenth of a second, from whichever process: shadow
# processes that start together get in each other's way.
_PAUSE_S: Final = 0.11
_TRIES: Final = 20


def step_back(nice: int, *, autogroup: Path = AUTOGROUP) -> None:
    """Gives every thread of this process, and with them those that they start, at least this nice value (0 to 19).

    If the process leads a session, as what the service starts does, its autogroup gets the same value. A process
    started by hand shares its group with the terminal's others, which stay as they are. Never raises the priority. What
    the system refuses stays as it was.
    """
    for thread in psutil.Process().threads():  # imports may have started some; Linux has a value for each
        with contextlib.suppress(OSError):
            before = os.getpriority(os.PRIO_PROCESS, thread.id)
            os.setpriority(os.PRIO_PROCESS, thread.id, max(nice, before))
    if os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):
            _group_steps_back(nice, autogroup)


def _group_steps_back(nice: int, autogroup: Path) -> None:
    """Raises OSError if it is refused."""
    said = autogroup.read_text(encoding="ascii").split()
    if not said or int(said[-1]) >= nice:  # a process that is in none gets nothing
        return
    for _ in range(_TRIES):
        with contextlib.suppress(BlockingIOError):
            autogroup.write_text(str(nice), encoding="ascii")
            return
        time.sleep(_PAUSE_S)
