"""Runs programs of models and their tests, each in a confined process of its own, and reports how they ended.

`confined` says what a program may do, and what the verdict rests on. Before the first one, `require` proves on this
very machine that the doors are shut; where one is not, nothing is run.
"""

from __future__ import annotations

import builtins
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from app.contracts.errors import ErrorCode, HemostatError

CONFINED: Final = Path(__file__).with_name("confined.py")
_POLL_S: Final = 0.05
_GONE_S: Final = 1.0  # for a process to end that sends nothing any more
_EXCEPTIONS: Final = frozenset(
    name for name, one in vars(builtins).items() if isinstance(one, type) and issubclass(one, BaseException)
)

# What must fail inside, by what it would do.
PROBES: Final[dict[str, str]] = {
    "open a network connection": "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_STREAM)",
    "open a local socket": "import socket\nsocket.socket(socket.AF_UNIX, socket.SOCK_STREAM)",
    "start a process": "import os\nos.posix_spawn('/bin/true', ['true'], {})",
    "fork": "import os\nif os.fork() == 0:\n    os._exit(0)",
    "start a thread": "import threading\nt = threading.Thread(target=int)\nt.start()\nt.join()",
    "read a file": "open('there').read()",
    "read another process's environment": "import os\nopen(f'/proc/{os.getppid()}/environ', 'rb').read()",
    "list a folder": "import os\nos.listdir('.')",
    "write a file": "open('written', 'w').write('x')",
    "make a folder": "import os\nos.mkdir('made')",
    "remove a file": "import os\nos.unlink('there')",
    "rename a file": "import os\nos.rename('there', 'elsewhere')",
    "signal another process": "import os\nos.kill(os.getppid(), 0)",
    "have the kernel signal another process": "import fcntl, os\nfcntl.fcntl(0, fcntl.F_SETOWN, os.getppid())",
    "control a device": "import fcntl\nfcntl.ioctl(0, 0x80086601, bytes(8))",
}


@dataclass(frozen=True)
class Limits:
    """What one program may take: seconds of the clock, seconds of a processor, bytes of address space."""

    wall_s: float = 20.0
    cpu_s: int = 5
    memory_bytes: int = 1024**3


@dataclass(frozen=True)
class Check:
    """What judges a program: `source` defines `check`, which is called with the program's function `name`. Other names
    that it uses are those of the `prompt`, as its authors wrote it."""

    prompt: str
    source: str
    name: str


Outcome = Literal["passed", "wrong", "error", "time_limit", "stopped"]


_PROOF: Final = Check("def f():", "def check(candidate):\n    assert candidate() == sum(range(4))", "f")


@dataclass(frozen=True)
class Ending:
    """How a program ended: at its end; by a failed assertion; by another exception, whose nearest built-in class is
    `error`. Or beyond a limit of time, or otherwise, as by ending itself."""

    outcome: Outcome
    error: str | None = None


def passes(
    program: str,
    test: Check | None = None,
    limits: Limits = Limits(),
    *,
    check_cancelled: Callable[[], None] = lambda: None,
) -> bool:
    """Whether program and test came to their end without an exception, within the limits. Raises as `run` does."""
    return run(program, test, limits, check_cancelled=check_cancelled).outcome == "passed"


def run(
    program: str,
    test: Check | None = None,
    limits: Limits = Limits(),
    *,
    check_cancelled: Callable[[], None] = lambda: None,
) -> Ending:
    """How the program and its test end, within the limits of each. Without a test the program's own word is taken.

    Raises CODE_SANDBOX_UNAVAILABLE if a process could not be confined, and what `check_cancelled` raises; both are
    ended then.
    """
    sources = {"program": program, "check": json.dumps(test and vars(test))}
    with tempfile.TemporaryDirectory(prefix="hemostat-code-") as folder, ExitStack() as held:
        (Path(folder) / "there").touch()
        ends = dict(zip(sources, map(held.enter_context, socket.socketpair()), strict=True))
        reading, writing = os.pipe()
        verdict = held.enter_context(os.fdopen(reading, "rb"))
        started: dict[str, subprocess.Popen[bytes]] = {}
        with os.fdopen(writing, "wb") as theirs:
            for role, source in sources.items():
                descriptors = (ends[role].fileno(), theirs.fileno() if role == "check" else -1)
                started[role] = _start(role, source, descriptors, limits, folder)
                held.callback(_kill, started[role])
                ends[role].close()
        status = _wait(started["check"], limits.wall_s, check_cancelled)
        _kill(started["check"])
        told = verdict.read(64).decode()
        if status == 97:
            raise _unavailable("this kernel takes no seccomp filter, or this kind of processor has no list of calls")
        return _ending(told, status, started["program"])


def _ending(told: str, status: int | None, program: subprocess.Popen[bytes]) -> Ending:
    """From what the test's process said, and its status: None if it was still running."""
    if told == "passed" and status == 0:
        return Ending("passed")
    if told == AssertionError.__name__:
        return Ending("wrong")
    if told in _EXCEPTIONS:
        return Ending("error", told)
    late = status is None or -signal.SIGXCPU in {status, _wait(program, _GONE_S, lambda: None)}
    return Ending("time_limit" if late else "stopped")


def require(*, check_cancelled: Callable[[], None] = lambda: None) -> None:
    """Proves that a harmless program passes and that nothing of `PROBES` does. Raises CODE_SANDBOX_UNAVAILABLE."""
    patient = Limits(wall_s=120.0)  # a busy machine is no open door
    if not passes("def f():\n    return 6", _PROOF, patient, check_cancelled=check_cancelled):
        raise _unavailable("not even a harmless program came to its end")
    for what, program in PROBES.items():
        if passes(program, None, patient, check_cancelled=check_cancelled):
            raise _unavailable(f"a confined program could still {what}")


def _start(
    role: str, source: str, descriptors: tuple[int, int], limits: Limits, folder: str
) -> subprocess.Popen[bytes]:
    # No site packages, nothing of ours, no environment that could name a secret; not -I, which would pass over the seed
    # of hashes: sets must have the same order for both models, and in every run.
    numbers = [str(number) for number in (*descriptors, limits.cpu_s, limits.memory_bytes)]
    with tempfile.TemporaryFile() as file:
        file.write(source.encode("utf-8", "replace"))
        file.seek(0)
        return subprocess.Popen(
            [sys.executable, "-P", "-s", "-S", "-B", str(CONFINED), role, *numbers],
            cwd=folder,
            env={"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"},
            stdin=file,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[one for one in descriptors if one >= 0],
            start_new_session=True,
        )


def _wait(child: subprocess.Popen[bytes], wall_s: float, check_cancelled: Callable[[], None]) -> int | None:
    waited = 0.0
    while waited < wall_s:
        try:
            return child.wait(_POLL_S)
        except subprocess.TimeoutExpired:
            waited += _POLL_S
            check_cancelled()
    return None


def _kill(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _unavailable(why: str) -> HemostatError:
    return HemostatError(
        ErrorCode.CODE_SANDBOX_UNAVAILABLE,
        f"this machine cannot run code that a model wrote: {why}",
        hint="leave tasks of code out, or run the worker on Linux 3.17 or newer, x86-64 or arm64",
    )
