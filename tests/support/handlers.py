"""Job handlers that do, on purpose, what handlers must not: for the tests of the worker's processes.

A job says what to do in its metadata: `do` names the deed, the rest are its numbers. Every step is written to `trace`
below the home folder, one JSON object a line, so that a test sees which attempt and which process did it.
"""

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.text import InlineText
from app.files import write_atomically
from app.jobs.states import note_state
from app.kinds.calibrate import KIND as CALIBRATE
from app.kinds.compare import KIND as COMPARE
from app.kinds.compare.request import CompareRequest
from app.locks import try_lock
from app.settings import Settings
from workers.process.handler import Handlers, JobCancelled, JobContext

SECRET = "The heron waits where the river forgets its own name."


class SmallReport(BaseModel):
    """The least that a report is."""

    severity: str = "none"
    steps: tuple[int, ...] = ()

    @property
    def decision(self) -> Self:
        """Its own verdict, undecided beside no damage."""
        return self

    @property
    def classes(self) -> tuple[str, ...]:
        """No damage, and the class that it names."""
        return tuple(dict.fromkeys(("none", self.severity)))


class PaperRoom:
    """A room without engines; leaves a line in the trace whenever one is opened or closed."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        trace(settings, what="room opened")

    def take_share(self, share: float) -> None:
        trace(self.settings, what="share", share=share)

    def close(self) -> None:
        trace(self.settings, what="room closed")


def trace(settings: Settings, **facts: Any) -> None:
    settings.home.mkdir(parents=True, exist_ok=True)
    with (settings.home / "trace").open("a") as file:
        file.write(json.dumps({"pid": os.getpid(), "at": time.time(), **facts}) + "\n")


def read_trace(settings: Settings) -> list[dict[str, Any]]:
    path = settings.home / "trace"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def do(request: CompareRequest, context: JobContext, room: PaperRoom) -> SmallReport:
    trace(context.settings, what="begun", job=context.job_id, attempt=context.attempt)
    deed = DEEDS[request.metadata["do"]]
    return deed(request, context) or SmallReport()


def go(settings: Settings, job_id: str) -> None:
    """Lets a job that halts go on."""
    _sign(settings, job_id).touch()


def told_to_go(context: JobContext) -> bool:
    """Whether `go` was called for the job."""
    return _sign(context.settings, context.job_id).exists()


def _sign(settings: Settings, job_id: str) -> Path:
    return settings.home / f"go-{job_id}"


def count(request: CompareRequest, context: JobContext) -> SmallReport:
    """Steps of `slice` seconds; each is kept in the scratch folder and not done again. With `halt`, it does so many of
    them and no more before `go`: however fast the machine is, the job has not ended by then. With `deaf` it does not
    hear of a stop within a step."""
    steps = int(request.metadata["steps"])
    phase = request.metadata.get("phase", "candidate")
    halt = int(request.metadata.get("halt", steps))
    for step in range(steps):
        while step >= halt and not told_to_go(context):
            context.check_cancelled()
            time.sleep(0.02)
        kept = context.scratch / str(step)
        if not kept.is_file():
            end = time.monotonic() + float(request.metadata.get("slice", "0"))
            while time.monotonic() < end:
                if "deaf" not in request.metadata:
                    context.check_cancelled()
                time.sleep(0.02)
            if "deaf" not in request.metadata:
                context.check_cancelled()
            temporary = kept.with_suffix(f".{os.getpid()}")
            temporary.write_text(str(context.attempt))
            temporary.replace(kept)
            trace(context.settings, what="step", job=context.job_id, step=step, attempt=context.attempt)
        context.progress(phase, step + 1, steps)
        context.check_cancelled()
    context.log(f"counted to {steps}")
    (context.output / "tokens.txt").write_text("\n".join(str(step) for step in range(steps)))
    context.observe("tokens_scored", steps, role="candidate")
    for value in (1e-4, 2e-2):
        context.observe("kl_nats", value, reference="a", model="b", recipe="0123456789ab")
    return SmallReport(severity="mild", steps=tuple(range(steps)))


def quote(request: CompareRequest, context: JobContext) -> SmallReport:
    """Leaves the text of its documents everywhere where a job may: its scratch folder, an artifact, hidden states."""
    assert isinstance(request.text, InlineText)
    text = "".join(document.text or "" for document in request.text.documents)
    states = context.settings.home / "references"
    note_state(states, context.job_id, "key")
    (states / "key").mkdir(exist_ok=True)
    for path in (context.scratch / "rows", context.output / "quote.txt", states / "key" / "header.json"):
        path.write_text(text)
    return SmallReport()


def points(request: CompareRequest, context: JobContext) -> SmallReport:
    """Points that several workers take from each other. The attempt itself takes no more than `own` before `go`."""
    steps = int(request.metadata["steps"])
    while _point(request, context, most=int(request.metadata["own"])) < steps:
        context.check_cancelled()
        time.sleep(0.02)
    return SmallReport(severity="mild", steps=tuple(range(steps)))


def _point(request: CompareRequest, context: JobContext, *, most: int | None = None) -> int:
    """Takes at most one point that nobody has; returns how many there are. `most` is how many this process takes."""
    steps = int(request.metadata["steps"])
    claims, files = context.scratch / "claims", [context.scratch / f"point-{step}" for step in range(steps)]
    mine = sum(file.is_file() and file.read_text() == str(os.getpid()) for file in files)
    may = most is None or mine < most or told_to_go(context)
    for step, file in enumerate(files):
        if file.is_file() or not may or (lock := try_lock(claims / str(step), exclusive=True)) is None:
            continue
        try:
            if not file.is_file():
                trace(context.settings, what="point begun", job=context.job_id, step=step, helping=most is None)
                while most is None and "loiter" in request.metadata and not told_to_go(context):
                    context.check_cancelled()
                    time.sleep(0.02)
                write_atomically(file, str(os.getpid()).encode())
                trace(context.settings, what="point", job=context.job_id, step=step, helping=most is None)
        finally:
            lock.release()
        break
    found = sum(file.is_file() for file in files)
    context.progress("points", found, steps)
    return found


def help_out(request: CompareRequest, context: JobContext, room: PaperRoom) -> None:
    """Takes points of another worker's job until there are none."""
    trace(context.settings, what="helping", job=context.job_id, attempt=context.attempt)
    if "hang" in request.metadata:
        hang(request, context)
    if "fail" in request.metadata:
        raise ValueError(f"cannot digest {SECRET}")
    while _point(request, context) < int(request.metadata["steps"]):
        context.check_cancelled()


def stubborn(request: CompareRequest, context: JobContext) -> None:
    """Deaf to cancellation, with a process of its own, as an engine may have."""
    helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    trace(context.settings, what="helper", helper=helper.pid)
    context.progress("engine", 0, 0)
    time.sleep(600)


def hang(request: CompareRequest, context: JobContext) -> None:
    """In Python, with a process of its own and a text among its values."""
    secret, helper = SECRET, subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    trace(context.settings, what="helper", helper=helper.pid)
    while secret:
        time.sleep(0.01)


def hang_in_c(request: CompareRequest, context: JobContext) -> None:
    """One call that holds the interpreter's lock, so that no other thread of the process runs."""
    re.match(r"(a+)+$", "a" * 60 + SECRET)


def quiet(request: CompareRequest, context: JobContext) -> None:
    """Work without a step to tell of, which can be stopped at any time."""
    end = time.monotonic() + float(request.metadata["seconds"])
    while time.monotonic() < end:
        context.check_cancelled()
        time.sleep(0.01)


def segfault(request: CompareRequest, context: JobContext) -> None:
    ctypes.string_at(0)


def killed(request: CompareRequest, context: JobContext) -> None:
    """What the kernel's out-of-memory killer does."""
    os.kill(os.getpid(), signal.SIGKILL)


def exit_now(request: CompareRequest, context: JobContext) -> None:
    os._exit(3)


def allocate(request: CompareRequest, context: JobContext) -> None:
    bytearray(1 << 60)


def allocate_on_a_gpu(request: CompareRequest, context: JobContext) -> None:
    """torch's own words, as its allocator puts them together."""
    import torch

    raise torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.10 GiB of which 15.32 GiB "
        "is free. Including non-PyTorch memory, this process has 63.70 GiB memory in use. Of the allocated memory "
        "61.90 GiB is allocated by PyTorch, and 1.10 GiB is reserved by PyTorch but unallocated."
    )


def find_no_room(request: CompareRequest, context: JobContext) -> None:
    raise HemostatError(ErrorCode.ENGINE_OUT_OF_MEMORY, "the model needs about 16.06 GB", hint="use another machine")


def fill_disk(request: CompareRequest, context: JobContext) -> None:
    (context.output / "half.bin").write_bytes(b"half")
    with Path("/dev/full").open("wb") as file:
        file.write(b"x")


def tell_secret(request: CompareRequest, context: JobContext) -> None:
    raise ValueError(f"cannot digest {SECRET}")


def refuse(request: CompareRequest, context: JobContext) -> None:
    raise HemostatError(ErrorCode.HEAD_MISMATCH, "layer 3 differs", hint="use another model")


def kill_worker(request: CompareRequest, context: JobContext) -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(600)


def talk(request: CompareRequest, context: JobContext) -> None:
    """More than a pipe holds, of every kind, as fast as it goes."""
    for index in range(20_000):
        context.progress("reference", index, 20_000)
        context.observe("kl_nats", 1e-3, reference="a", model="talk", recipe="none")
    context.observe("no_such_metric", 1)


def babble(request: CompareRequest, context: JobContext) -> None:
    """Writes nonsense to whatever sockets the process has."""
    for descriptor in Path("/proc/self/fd").iterdir():
        if str(descriptor.resolve(strict=False)).rpartition("/")[2].startswith("socket:"):
            os.write(int(descriptor.name), b"nonsense\n")


def stop_unasked(request: CompareRequest, context: JobContext) -> None:
    raise JobCancelled


def odd_artifact(request: CompareRequest, context: JobContext) -> None:
    (context.output / "a name with spaces").touch()


_DEEDS = (
    *(count, quote, points, stubborn, hang, hang_in_c, quiet, segfault, killed, exit_now, allocate, fill_disk),
    *(allocate_on_a_gpu, find_no_room),
    *(tell_secret, refuse, kill_worker, talk, babble, stop_unasked, odd_artifact),
)
DEEDS: dict[str, Callable[[CompareRequest, JobContext], SmallReport | None]] = {
    function.__name__: function for function in _DEEDS
}

HANDLERS = Handlers(
    kinds={
        "compare": replace(COMPARE, handler="tests.support.handlers:do", helper="tests.support.handlers:help_out"),
        "calibrate": replace(CALIBRATE, handler="tests.support.handlers:do", answer=""),
    },
    room="tests.support.handlers:PaperRoom",
)
