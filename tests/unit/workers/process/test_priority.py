"""A process that steps back is nicer afterwards, with the threads that it starts, and never less nice than before."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.skipif(not AUTOGROUP.exists(), reason="this kernel has no autogroups")
def test_the_kernel_takes_what_is_written() -> None:
    program = "import pathlib; from workers.process.priority import *; step_back(10); print(AUTOGROUP.read_text())"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, timeout=120, start_new_session=True, text=True
    )
    assert done.stdout.split()[-1] == "10"
