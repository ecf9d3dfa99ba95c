"""A process that steps back is nicer afterwards, with the threads that it starts, and never less nice than before."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path, PosixPath
from typing import Any

import pytest

from workers.process import priority
from workers.process.priority import AUTOGROUP

# What runs the tests may have stepped back itself, and nobody but root undoes that.
OWN = os.getpriority(os.PRIO_PROCESS, 0)
STEPPED_BACK = 3 * [max(OWN, 10)]

LOOK = """
import json, os, sys, threading
from pathlib import Path
from workers.process.priority import step_back

def started(until):
    def run():
        found.append(threading.get_native_id())
        until.wait()
    thread = threading.Thread(target=run)
    thread.start()
    while not found:
        pass
    return found.pop()


found, end = [], threading.Event()
os.nice(int(sys.argv[1]))
earlier = started(end)
if sys.argv[3]:
    step_back(int(sys.argv[2]), autogroup=Path(sys.argv[3]))
else:
    step_back(int(sys.argv[2]))
later = started(end)
print(json.dumps([os.getpriority(os.PRIO_PROCESS, one) for one in (0, earlier, later)]))
end.set()
"""


def nice_of(before: int, asked: int, autogroup: str = "", *, leads: bool = True) -> list[int]:
    """Of the first thread, of an earlier and of a later one, in a process of its own: none can be lowered again."""
    arguments = [sys.executable, "-c", LOOK, str(before), str(asked), autogroup]
    done = subprocess.run(arguments, capture_output=True, check=True, timeout=120, start_new_session=leads, text=True)
    values: list[int] = json.loads(done.stdout)
    return values


class Busy(PosixPath):
    """An autogroup that takes a value only when it was asked often enough."""

    refusals = 0

    def write_text(self, data: str, *rest: Any, **named: Any) -> int:
        type(self).refusals -= 1
        if self.refusals >= 0:
            raise BlockingIOError(errno.EAGAIN, "too soon")
        return super().write_text(data, *rest, **named)


def test_every_thread_has_the_value_whenever_it_was_started() -> None:
    assert nice_of(0, 10) == STEPPED_BACK


def test_one_that_is_nicer_already_stays_so() -> None:
    assert nice_of(15, 10) == 3 * [min(19, max(OWN + 15, 10))]


@pytest.mark.parametrize(("said", "left"), [("/autogroup-7 nice 0\n", "10"), ("/autogroup-7 nice 12\n", None)])
def test_the_group_of_its_own_session_gets_it_too_and_is_never_raised(
    tmp_path: Path, said: str, left: str | None
) -> None:
    group = tmp_path / "autogroup"
    group.write_text(said, encoding="ascii")
    nice_of(0, 10, str(group))
    assert group.read_text(encoding="ascii") == (left or said)


def test_a_session_that_others_lead_stays_as_it_is(tmp_path: Path) -> None:
    group = tmp_path / "autogroup"
    group.write_text("/autogroup-7 nice 0\n", encoding="ascii")
    assert nice_of(0, 10, str(group), leads=False) == STEPPED_BACK
    assert group.read_text(encoding="ascii") == "/autogroup-7 nice 0\n"


def test_a_system_without_autogroups_is_no_error(tmp_path: Path) -> None:
    assert nice_of(0, 10, str(tmp_path / "none")) == STEPPED_BACK


def test_a_session_in_no_autogroup_is_no_error(tmp_path: Path) -> None:
    """Linux tells a session nothing that is as old as the system."""
    group = tmp_path / "autogroup"
    group.touch()
    assert nice_of(0, 10, str(group)) == STEPPED_BACK
    assert group.read_text(encoding="ascii") == ""


@pytest.mark.parametrize(("refusals", "left"), [(3, "10"), (1000, "/autogroup-7 nice 0\n")])
def test_a_kernel_that_was_asked_too_soon_is_asked_again_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusals: int, left: str
) -> None:
    monkeypatch.setattr(Busy, "refusals", refusals)
    monkeypatch.setattr(priority, "_PAUSE_S", 0.0)
    group = Busy(tmp_path / "autogroup")
    PosixPath(group).write_text("/autogroup-7 nice 0\n", encoding="ascii")
    priority._group_steps_back(10, group)
    assert group.read_text(encoding="ascii") == left


@pytest.mark.skipif(not AUTOGROUP.exists(), reason="this kernel has no autogroups")
def test_the_kernel_takes_what_is_written() -> None:
    program = "import pathlib; from workers.process.priority import *; step_back(10); print(AUTOGROUP.read_text())"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, timeout=120, start_new_session=True, text=True
    )
    assert done.stdout.split()[-1] == "10"
