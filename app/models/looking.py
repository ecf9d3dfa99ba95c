"""What a request names is looked into by a process of its own: the files are strangers', made to exhaust a reader if
need be.

The process has limits of memory, processor time and time. It is kept, since it remembers what it has read until a file
changes; one that meets a limit is killed, and the next question starts another.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from app.admission import Line
from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.job import Estimate
from app.contracts.request import JobRequest
from app.models.pace import Pace
from app.models.registry import ModelEntry
from app.secrets import without_secrets
from app.settings import Settings

AT_ONCE: Final = 2
# The largest known models take 8 s and 0.7 GiB, with a tokenizer of their own for each side.
CPU_S: Final = 20
LONGEST_S: Final = 60.0
MEMORY_BYTES: Final = 1024**3
_COMMAND: Final = (sys.executable, "-m", "app.kinds.looker")


async def check(request: JobRequest, settings: Settings, owner: str) -> None:
    """`app.kinds.preflight.check_request`, elsewhere. Raises what that raises, CHECKPOINT_UNSUPPORTED if it meets a
    limit, RATE_LIMITED and UNAVAILABLE if too many ask at once."""
    await _in_turn("check", request, settings, owner)


async def estimate(request: JobRequest, settings: Settings, owner: str, here: Pace | None) -> Estimate:
    """`app.kinds.estimates.estimate`, elsewhere. Raises as `check` does."""
    told = await _in_turn("estimate", request, settings, owner, pace=None if here is None else vars(here))
    return Estimate.model_validate(told)


def describe(entry: ModelEntry) -> str:
    """What a checkpoint is, in a line. Raises what `inspect` and `check_tokenizer` raise, CHECKPOINT_UNSUPPORTED if it
    meets a limit."""
    path, tokenizer = str(entry.checkpoint_path()), str(entry.tokenizer_path())
    told: str = _ask({"what": "model", "path": path, "tokenizer": tokenizer, "name": entry.alias}, entry.alias)
    return told


def weights_of(path: Path) -> str:
    """`app.models.checkpoint.fingerprint`, elsewhere: a second per GB, and as much time as that takes."""
    told: str = _ask({"what": "weights", "path": str(path)}, str(path), reading_s(path))
    return told


def reading_s(path: Path) -> float:
    """How long a slow disk (50 MB/s) takes for the files of a folder, in seconds. Raises `OSError`."""
    return sum(file.stat().st_size for file in path.iterdir() if file.is_file()) / 5e7


def ask_about(what: str, request: JobRequest, settings: Settings, **more: object) -> Any:
    """Asks, and waits for the answer: call it from a thread."""
    question = {
        "what": what,
        "request": request.model_dump(mode="json", exclude={"dry_run"}),
        "settings": settings.model_dump_json(exclude={"redis_url", "api_keys_file"}),
        **more,
    }
    return _ask(question, " and ".join(dict.fromkeys([request.reference.model, request.candidate.model])))


async def _in_turn(what: str, request: JobRequest, settings: Settings, owner: str, **more: object) -> Any:
    async with _line.place(owner):
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(_threads, lambda: ask_about(what, request, settings, **more))


def _ask(question: dict[str, Any], about: str, slack_s: float = 0) -> Any:
    limits = CPU_S + slack_s, LONGEST_S + slack_s
    helper = _idle.pop() if _idle else _Helper()
    exceeded = helper.ask(question, *limits)
    if exceeded is _MEMORY and helper.remembers:  # that may have taken it
        helper = _Helper()
        exceeded = helper.ask(question, *limits)
    if exceeded:
        raise HemostatError(
            ErrorCode.CHECKPOINT_UNSUPPORTED,
            f"the files of {about} cannot be checked: reading them takes more than {exceeded}",
            hint="fetch them again from a source that you trust: config.json, tokenizer, headers of weights, adapters",
        )
    _idle.append(helper)
    told = helper.answer
    if "error" in told:
        error = told["error"]
        raise HemostatError(ErrorCode(error["code"]), error["detail"], hint=error["hint"], pointer=error["pointer"])
    if "crash" in told:
        raise RuntimeError(f"looking into models failed: {told['crash']}")
    return told["found"]


class _Helper:
    """One process, `app.kinds.looker`. `remembers`: what it has read before takes a part of its memory that counts."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            _COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=without_secrets(), start_new_session=True
        )
        self.remembers = False
        self.answer: dict[str, Any] = {}

    def ask(self, question: dict[str, Any], cpu_s: float, longest_s: float) -> str:
        """Sets `answer`. Else the process is gone: the limit that it met, in words."""
        assert self._process.stdin is not None  # noqa: S101 - both are pipes
        assert self._process.stdout is not None  # noqa: S101
        began = time.monotonic()
        line = json.dumps(question | {"cpu_s": cpu_s}).encode() + b"\n"
        timer = threading.Timer(longest_s, self._process.kill)
        timer.start()
        try:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(line)
                self._process.stdin.flush()
            told = self._process.stdout.readline()
        finally:
            timer.cancel()
        if told.endswith(b"\n"):
            self.answer = json.loads(told)
            self.remembers = self.answer["held"] > MEMORY_BYTES / 4
            return ""
        if self.end() == -signal.SIGXCPU:
            return f"{cpu_s:.0f} s of a processor"
        return f"{longest_s:.0f} s" if time.monotonic() - began >= longest_s else _MEMORY

    def end(self) -> int:
        """Ends the process; its status."""
        assert self._process.stdout is not None  # noqa: S101
        self._process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()
        return self._process.wait()


_MEMORY: Final = f"{MEMORY_BYTES / 1024**3:g} GiB of memory"
_threads: Final = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="looking")
_line: Final = Line(
    per_replica=AT_ONCE,
    most_queued=64,
    timeout_s=2 * LONGEST_S,
    owner_share=0.5,
    what="models to be looked into",
    late=ErrorCode.UNAVAILABLE,
)
_idle: Final[list[_Helper]] = []


@atexit.register
def _end_all() -> None:
    while _idle:
        _idle.pop().end()
