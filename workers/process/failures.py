"""From an exception, or from the way a process died, to an error that a person can act on.

Nothing here may carry document text: messages of foreign exceptions are cut down, and dropped whole where they repeat
any of the request's text.
"""

from __future__ import annotations

import errno
import re
import signal
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

from app.contracts.errors import DISK_FULL_ERRNOS, ErrorCode, HemostatError
from app.contracts.job import JobError, job_error
from workers.engine.errors import causes, is_gpu_failure

MAX_MESSAGE: Final = 300
# A message repeats a document when so many characters in a row are the same (looked at every half so many).
SHINGLE: Final = 12

_HINT_MEMORY: Final = (
    "use a smaller window or fewer documents, free memory or use a machine with more; "
    "HEMOSTAT_ENGINE_BATCH_TOKENS and HEMOSTAT_ENGINE_KV_CACHE_BYTES bound what the engine takes"
)
_HINT_DISK: Final = "free space below HEMOSTAT_HOME, or lower the budgets of the reference and checkpoint stores"
_HINT_IMPORT: Final = "the worker lacks a package, or it does not fit: run `make setup`, then `hemostat doctor`"
_HINT_ENGINE: Final = "the worker's log has the traceback; the worker goes on with a fresh engine"

_MEMORY_TYPES: Final = frozenset({"OutOfMemoryError", "MemoryError", "_ArrayMemoryError"})
_MEMORY_WORDS: Final = re.compile(
    r"out of memory|can't allocate memory|cannot allocate memory|not enough memory|bad_alloc"
    r"|No available memory for the cache blocks|ENOMEM",
    re.IGNORECASE,
)
_DISK_WORDS: Final = re.compile(
    r"No space left on device|Disk quota exceeded|File too large \(os error 27\)|os error (28|122)\b", re.IGNORECASE
)

_QUOTED: Final = re.compile(r"'[^']{32,}'|\"[^\"]{32,}\"|`[^`]{32,}`|\[[^\]]{80,}\]|\{[^}]{80,}\}")
_PATH: Final = re.compile(r"(?<![\w.])/(?:[\w.@+~-]+/)+[\w.@+~-]+/?")


@dataclass(frozen=True)
class Failure:
    """How an attempt failed. `spoiled`: the process it failed in is not to be trusted with another job."""

    error: JobError
    spoiled: bool


def explain(exception: BaseException, documents: Iterable[str] = ()) -> Failure:
    """What a handler's exception means. `documents` is every text of the request, which must not reappear.

    The whole chain of causes is looked at: an engine wraps what really happened.
    """
    if isinstance(exception, HemostatError):
        # The reason behind it decides whether this process may go on. What it holds ends with it.
        spoiled = exception.code is ErrorCode.ENGINE_OUT_OF_MEMORY or any(map(spoils, causes(exception)))
        return Failure(job_error(exception.code, exception.detail, exception.hint), spoiled)
    chain = list(causes(exception))
    # Only what it was explicitly raised from: a bug met while a HemostatError was handled is still a bug.
    cause = exception.__cause__
    while cause is not None:
        if isinstance(cause, HemostatError):
            return Failure(job_error(cause.code, cause.detail, cause.hint), spoiled=True)
        cause = cause.__cause__
    if any(_is_disk(cause) for cause in chain):
        detail = "the disk filled up while the job wrote its files"
        return Failure(job_error(ErrorCode.DISK_FULL, detail, _HINT_DISK), spoiled=True)
    if any(_is_memory(cause) for cause in chain):
        detail = f"memory ran out ({describe(exception, documents)})"
        return Failure(job_error(ErrorCode.ENGINE_OUT_OF_MEMORY, detail, _HINT_MEMORY), spoiled=True)
    if isinstance(exception, ImportError):
        return Failure(job_error(ErrorCode.ENGINE_FAILED, describe(exception, documents), _HINT_IMPORT), spoiled=True)
    code = ErrorCode.ENGINE_FAILED if any(_from_engine(cause) for cause in chain) else ErrorCode.INTERNAL
    return Failure(job_error(code, describe(exception, documents), _HINT_ENGINE), spoiled=True)


def explain_exit(returncode: int | None) -> JobError:
    """What it means that the child is gone without having said how its attempt ended."""
    if returncode is not None and returncode < 0:
        number = -returncode
        name = signal.Signals(number).name if number in signal.valid_signals() else f"signal {number}"
        if number == signal.SIGKILL:
            detail = "the engine's process was killed from outside (SIGKILL), most likely because memory ran out"
            return job_error(ErrorCode.ENGINE_OUT_OF_MEMORY, detail, _HINT_MEMORY)
        detail = f"the engine's process crashed ({name})"
        return job_error(ErrorCode.ENGINE_FAILED, detail, _HINT_ENGINE)
    detail = "the engine's process ended in mid-job" + (f" with status {returncode}" if returncode is not None else "")
    return job_error(ErrorCode.ENGINE_FAILED, detail, _HINT_ENGINE)


def describe(exception: BaseException, documents: Iterable[str] = ()) -> str:
    """Type, place and, where it is safe, message: `ValueError in workers.engine.scoring:120: …`."""
    where = _place(exception)
    told = sanitise(str(exception), documents)
    return f"{type(exception).__name__}{f' in {where}' if where else ''}{f': {told}' if told else ''}"


def safe_traceback(exception: BaseException, documents: Iterable[str] = ()) -> str:
    """The traceback for the worker's log: frames of the whole chain, messages as `describe` has them, no values."""
    parts: list[str] = []
    known = list(documents)
    for cause in reversed(list(causes(exception))):
        parts.extend(traceback.format_tb(cause.__traceback__))
        parts.append(f"{describe(cause, known)}\n")
    return "".join(parts)


def sanitise(message: str, documents: Iterable[str] = ()) -> str:
    """The message's first line, short, without folders or long quotations; "" where it repeats a document."""
    line = message.strip().partition("\n")[0]
    line = "".join(character if character.isprintable() else "�" for character in line)
    line = _QUOTED.sub("…", line)
    line = _PATH.sub(lambda match: PurePath(match.group()).name, line)
    if _repeats(line, documents):
        return ""
    return line if len(line) <= MAX_MESSAGE else line[: MAX_MESSAGE - 1] + "…"


def texts_of(value: object) -> Iterator[str]:
    """Every text and every message of a request's `text`, as JSON has it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in {"text", "content"} and isinstance(inner, str):
                yield inner
            else:
                yield from texts_of(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from texts_of(inner)


def _repeats(line: str, documents: Iterable[str]) -> bool:
    runs = [line[start : start + SHINGLE] for start in range(0, max(1, len(line) - SHINGLE + 1), SHINGLE // 2)]
    runs = [run for run in runs if run.strip()]
    return any(
        any(run in document for run in runs) or (bool(document.strip()) and document in line) for document in documents
    )


def spoils(exception: BaseException) -> bool:
    """Whether it is the machine's, and no other job should run in this process: memory ran out, or a GPU failed."""
    return _is_memory(exception) or is_gpu_failure(exception)


def _is_memory(exception: BaseException) -> bool:
    """Whether it says that memory ran out, in whichever library's words."""
    if any(base.__name__ in _MEMORY_TYPES for base in type(exception).__mro__):
        return True
    if isinstance(exception, OSError):
        return exception.errno == errno.ENOMEM
    return isinstance(exception, RuntimeError | ValueError) and bool(_MEMORY_WORDS.search(str(exception)))


def _is_disk(exception: BaseException) -> bool:
    if isinstance(exception, OSError) and exception.errno in DISK_FULL_ERRNOS:
        return True
    # Rust and C++ libraries tell it in words only.
    return bool(_DISK_WORDS.search(str(exception)))


def _from_engine(exception: BaseException) -> bool:
    """Whether torch, vLLM or our engine room is anywhere in the traceback."""
    return any(
        name.split(".")[0] in {"torch", "vllm"} or name.startswith("workers.engine") for name in _modules(exception)
    )


def _modules(exception: BaseException) -> Iterator[str]:
    for frame, _ in traceback.walk_tb(exception.__traceback__):
        yield str(frame.f_globals.get("__name__", ""))


def _place(exception: BaseException) -> str:
    place = ""
    for frame, line in traceback.walk_tb(exception.__traceback__):
        place = f"{frame.f_globals.get('__name__', '?')}:{line}"
    return place
