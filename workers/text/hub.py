"""Text from a data set of the hub, by id and revision, through the `datasets` library.

Only data sets that the operator has allowed are read, in a process of their own (`hub_reader`), which ends with this
call. It streams rows from the hub's host alone, up to a number of bytes, and with no token but the one that the
operator has named. Data-set scripts are not run (the library has no way left to do so).
"""

import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any, Final, NoReturn

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.text import HubText
from app.models.texts import check_hub
from app.settings import Settings
from workers.text.callbacks import CheckCancelled, Progress, never_cancelled, no_progress
from workers.text.documents import Intake, TextDocument

_LOOK_S: Final = 0.2
# All that its process gets of this one's environment: no token, no address of Redis.
_PASSED: Final = ("PATH", "PYTHONPATH", "HF_ENDPOINT", "HF_HUB_OFFLINE", "SSL_CERT_FILE", "SSL_CERT_DIR")
_SET: Final = dict.fromkeys(("HF_HUB_DISABLE_IMPLICIT_TOKEN", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_XET"), "1")
_CACHES: Final = ("HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_MODULES_CACHE")


def load_hub(
    source: HubText,
    *,
    settings: Settings,
    progress: Progress = no_progress,
    check_cancelled: CheckCancelled = never_cancelled,
) -> list[TextDocument]:
    """The first `source.documents` rows of the split whose column is not blank, each a document named by its row.

    Raises HUB_FORBIDDEN (the operator has not allowed this data set), HUB_UNAVAILABLE (no network, or too many bytes),
    TEXT_NOT_FOUND (no such data set, configuration, split or revision). Also INVALID_REQUEST (no such column, or one
    that is not text; the columns are named), and what `Intake` raises."""
    check_hub(source, settings, "/text")
    progress("text", 0, source.documents)
    with closing(_lines(source, settings, check_cancelled)) as lines:
        return _documents(lines, source, Intake(settings), progress)


def _documents(lines: Iterator[Any], source: HubText, intake: Intake, progress: Progress) -> list[TextDocument]:
    names = next(lines)["columns"]
    columns = ", ".join(map(repr, names))
    if source.column not in names:
        raise _no_column(f"The data set {source.dataset!r} has no column {source.column!r}; it has {columns}.", columns)
    taken = 0
    for number, told in enumerate(lines):
        if "other" in told:
            held = f"holds {told['other']}, not text (row {number})"
            raise _no_column(f"Column {source.column!r} of {source.dataset!r} {held}.", columns)
        if not told["text"].strip():
            continue
        intake.add(TextDocument(f"{source.split}-{number}", source.domain, text=told["text"]))
        taken += 1
        progress("text", taken, source.documents)
        if taken == source.documents:
            break
    return intake.documents()


def _lines(source: HubText, settings: Settings, check_cancelled: CheckCancelled) -> Generator[Any, None, None]:
    """What the reader says, up to its end; it is ended with this generator."""
    token = settings.hub_token_file.read_text(encoding="utf-8").strip() if settings.hub_token_file else False
    asked = source.model_dump(include={"dataset", "config", "split", "column", "revision"})
    asked |= {"token": token, "budget": settings.hub_text_bytes}
    settings.home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.home, prefix="hub-") as folder:
        passed = {name: os.environ[name] for name in _PASSED if name in os.environ}
        reader = subprocess.Popen(
            [sys.executable, "-m", "app.supervised", str(os.getpid()), "workers.text.hub_reader"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=passed | _SET | dict.fromkeys(_CACHES, folder),
        )
        assert reader.stdin is not None and reader.stdout is not None  # noqa: S101 - both are pipes
        try:
            with reader.stdin as theirs:
                theirs.write(json.dumps(asked).encode())
            for line in _read(reader.stdout, check_cancelled):
                told = json.loads(line)
                if "fault" in told:
                    _refuse(source, told, settings)
                if "end" in told:
                    return
                yield told
            raise _unavailable(source, f"its reader ended with {reader.wait()}")
        finally:
            reader.kill()
            reader.wait()
            reader.stdout.close()


def _read(stream: Any, check_cancelled: CheckCancelled) -> Iterator[bytes]:
    kept = b""
    while True:
        check_cancelled()
        if not select.select([stream], [], [], _LOOK_S)[0]:
            continue
        piece = os.read(stream.fileno(), 1 << 20)
        *whole, kept = (kept + piece).split(b"\n")
        yield from whole
        if not piece:
            return


def _refuse(source: HubText, told: Any, settings: Settings) -> NoReturn:
    if told["fault"] == "budget":
        raise HemostatError(
            ErrorCode.HUB_UNAVAILABLE,
            f"The data set {source.dataset!r} has more than {settings.hub_text_bytes:,} bytes.",
            hint="Ask for fewer documents or another data set, or ask the operator to raise HEMOSTAT_HUB_TEXT_BYTES.",
            pointer="/text/dataset",
        )
    if told["fault"] == "elsewhere":
        raise _not_found(source, "its files lie elsewhere than in the data set")
    if told["fault"] == "missing":
        raise _not_found(source, "no such data set, configuration, split or revision, or no permission to read it")
    raise _unavailable(source, told["why"])


def _no_column(detail: str, columns: str) -> HemostatError:
    hint = f"Name a column of strings; the columns are {columns}."
    return HemostatError(ErrorCode.INVALID_REQUEST, detail, hint=hint, pointer="/text/column")


def _unavailable(source: HubText, why: str) -> HemostatError:
    return HemostatError(
        ErrorCode.HUB_UNAVAILABLE,
        f"The data set {source.dataset!r} cannot be read: the hub cannot be reached ({why}).",
        hint="Connect the worker to the hub (HF_HUB_OFFLINE unset, HF_ENDPOINT for a mirror), or put the text below "
        "HEMOSTAT_TEXT_ROOT and use the file source.",
        pointer="/text/dataset",
        retry_after_s=60,
    )


def _not_found(source: HubText, why: str) -> HemostatError:
    asked = f"{source.dataset!r}, configuration {source.config!r}, split {source.split!r}, revision {source.revision!r}"
    return HemostatError(
        ErrorCode.TEXT_NOT_FOUND,
        f"The hub's data set cannot be read ({asked}): {why}.",
        hint="Check the id, config, split and revision on the data set's page.",
        pointer="/text/dataset",
    )
