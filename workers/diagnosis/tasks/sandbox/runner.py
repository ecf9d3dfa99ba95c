"""Runs programs of models, each in a confined process of its own, and tells how they ended.

What a program may do stands in `confined`. Before the first one, `require` proves on this very machine that the doors
are shut; where one is not, nothing is run.
"""

from __future__ import annotations

import builtins
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from app.contracts.errors import ErrorCode, HemostatError

CONFINED: Final = Path(__file__).with_name("confined.py")
_POLL_S: Final = 0.05
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


Outcome = Literal["passed", "wrong", "error", "time_limit", "stopped"]


@dataclass(frozen=True)
class Ending:
    """How a program ended: at its end; by a failed assertion; by another exception, whose nearest built-in class is
    `error`; beyond a limit of time; or otherwise, as by ending itself."""

    outcome: Outcome
    error: str | None = None


def passes(program: str, limits: Limits = Limits(), *, check_cancelled: Callable[[], None] = lambda: None) -> bool:
    """Whether the program came to its end without an exception, within the limits. Raises as `run` does."""
    return run(program, limits, check_cancelled=check_cancelled).outcome == "passed"


def run(program: str, limits: Limits = Limits(), *, check_cancelled: Callable[[], None] = lambda: None) -> Ending:
    """How the program ends, within the limits.

    Raises CODE_SANDBOX_UNAVAILABLE where the process could not be confined, and what `check_cancelled` raises; the
    program is ended then.
    """
    token = secrets.token_hex(16)
    reading, writing = os.pipe()
    try:
        with tempfile.TemporaryDirectory(prefix="hemostat-code-") as folder, tempfile.TemporaryFile() as source:
            (Path(folder) / "there").touch()
            source.write(program.encode("utf-8", "replace"))
            source.seek(0)
            child = _start(token, limits, folder, source.fileno(), writing)
            try:
                status = _wait(child, limits.wall_s, check_cancelled)
            finally:
                _kill(child)
        os.set_blocking(reading, False)
        told = _read(reading)
    finally:
        os.close(reading)
        os.close(writing)
    proof = token.encode()
    # Before it has said that it is confined, it has run nothing of the program: the status is its own.
    if status == 97 and not told.startswith(proof):
        raise _unavailable("this kernel takes no seccomp filter, or this kind of processor has no list of calls")
    return _ending(told.removeprefix(proof) if told.startswith(proof) else b"", status, proof)


def _ending(told: bytes, status: int | None, proof: bytes) -> Ending:
    """From what the process said after its proof, and its status: None where it was still running."""
    if told == proof:
        return Ending("passed")
    if status is None or status == -signal.SIGXCPU:
        return Ending("time_limit")
    # The program may have written there, too: what it says is taken for no more than one of a few known names.
    name = told[1:].decode("ascii", "replace") if told.startswith(b"!") else ""
    if name == AssertionError.__name__:
        return Ending("wrong")
    return Ending("error", name) if name in _EXCEPTIONS else Ending("stopped")


def require(*, check_cancelled: Callable[[], None] = lambda: None) -> None:
    """Proves that a harmless program passes and that nothing of `PROBES` does. Raises CODE_SANDBOX_UNAVAILABLE."""
    patient = Limits(wall_s=120.0)  # a busy machine is no open door
    if not passes("assert sum(range(4)) == 6", patient, check_cancelled=check_cancelled):
        raise _unavailable("not even a harmless program came to its end")
    for what, program in PROBES.items():
        if passes(program, patient, check_cancelled=check_cancelled):
            raise _unavailable(f"a confined program could still {what}")


def _start(token: str, limits: Limits, folder: str, source: int, writing: int) -> subprocess.Popen[bytes]:
    # No site packages, nothing of ours, no environment that could name a secret; not -I, which would pass over the seed
    # of hashes: sets must have the same order for both models, and in every run.
    numbers = [str(number) for number in (writing, limits.cpu_s, limits.memory_bytes)]
    return subprocess.Popen(
        [sys.executable, "-P", "-s", "-S", "-B", str(CONFINED), token, *numbers],
        cwd=folder,
        env={"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"},
        stdin=source,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(writing,),
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


def _read(reading: int) -> bytes:
    try:
        return os.read(reading, 256)
    except BlockingIOError:
        return b""


def _kill(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _unavailable(why: str) -> HemostatError:
    return HemostatError(
        ErrorCode.CODE_SANDBOX_UNAVAILABLE,
        f"code that a model wrote is not run here: {why}",
        hint="leave tasks of code out, or run the worker on Linux 3.17 or newer, x86-64 or arm64",
    )
