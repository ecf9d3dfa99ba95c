"""A job's files below the home.

requests/ID.json    the request, with its text, until the job has ended; Redis holds its digest
jobs/ID/            what the attempts leave; once the job has ended, the attempt that succeeded
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from app.contracts.errors import DISK_FULL_ERRNOS, ErrorCode, HemostatError
from app.files import write_atomically
from app.jobs.ids import is_job_id
from app.jobs.states import drop_states
from app.settings import Settings

QUEUE_FULL_RETRY_S = 30
_ID_CHARACTERS = 31


class RequestLostError(Exception):
    """A stored request cannot be read; the text says why."""


def requests_folder(settings: Settings) -> Path:
    """Requests of jobs that have not ended."""
    return settings.home / "requests"


def request_file(settings: Settings, job_id: str) -> Path:
    """Where the request of a job is until the job has ended."""
    return requests_folder(settings) / f"{job_id}.json"


def states_folder(settings: Settings) -> Path:
    """Hidden states of references, and which job uses which."""
    return settings.home / "references"


def keep_request(settings: Settings, job_id: str, text: bytes, own: Sequence[str] = ()) -> str:
    """Writes a job's request before its record is made; returns its SHA-256, hex. `own`: the jobs of the same owner of
    keys that wait.

    Raises QUEUE_FULL if the requests that wait take as much as they may, or `own` half of that, and DISK_FULL.
    """
    folder = requests_folder(settings)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        waiting = [Path(entry.path) for entry in os.scandir(folder)]
        _require_room(waiting, len(text), settings.request_budget_bytes, "The requests that wait")
        if own:
            waiting = [request_file(settings, other) for other in own]
            _require_room(waiting, len(text), settings.request_budget_bytes // 2, "Your requests that wait")
        write_atomically(request_file(settings, job_id), text, mode=0o600)
    except OSError as error:
        if error.errno not in DISK_FULL_ERRNOS:
            raise
        raise HemostatError(ErrorCode.DISK_FULL, "The disk is full: the request could not be stored.") from error
    return hashlib.sha256(text).hexdigest()


def _require_room(waiting: Sequence[Path], size: int, budget: int, whose: str) -> None:
    kept = sum(map(_size, waiting))
    if kept + size > budget:
        raise HemostatError(
            ErrorCode.QUEUE_FULL,
            f"{whose} take {kept} of {budget} bytes on the disk; this one takes {size}.",
            retry_after_s=QUEUE_FULL_RETRY_S,
        )


def read_request(settings: Settings, job_id: str, digest: str) -> bytes:
    """What `keep_request` wrote. Raises RequestLostError if it is not there, may not be read, or is something else,
    and OSError where it may be read later."""
    path = request_file(settings, job_id)
    try:
        text = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise RequestLostError(f"The file of the request cannot be read ({error.strerror}): {path}.") from error
    if hashlib.sha256(text).hexdigest() != digest:
        raise RequestLostError(f"The file of the request was changed since it was written: {path}.")
    return text


def drop_request(settings: Settings, job_id: str) -> None:
    """Removes a job's request: the job has ended, or there is none."""
    with contextlib.suppress(FileNotFoundError):
        request_file(settings, job_id).unlink()


def requests(settings: Settings) -> Iterator[tuple[str, Path]]:
    """(job's id, file) of every request on disk, also of one that was half written."""
    with contextlib.suppress(FileNotFoundError):
        for path in requests_folder(settings).iterdir():
            job_id = path.name.removeprefix(".")[:_ID_CHARACTERS]
            if is_job_id(job_id):
                yield job_id, path


def tidy(settings: Settings, job_id: str, *, keep: str | None) -> None:
    """Removes of an ended job its request and everything in its folder but the attempt `keep`; the folder too, where
    nothing is left. Raises OSError if something cannot be removed."""
    drop_request(settings, job_id)
    folder = settings.job_dir(job_id)
    with contextlib.suppress(FileNotFoundError):
        for entry in folder.iterdir():
            if entry.name != keep:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        if keep is None:
            folder.rmdir()


def remove(settings: Settings, job_id: str) -> None:
    """Removes the job's request, folder and page, and the hidden states that no other job uses. Raises OSError if
    something cannot be removed."""
    drop_request(settings, job_id)
    drop_states(states_folder(settings), job_id)
    (settings.home / "reports" / f"{job_id}.html").unlink(missing_ok=True)
    folder = settings.job_dir(job_id)
    while folder.is_dir() and not folder.is_symlink():
        # Somebody else may remove the same folder at the same time: a second request, or another process's sweep.
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)


def sizes(settings: Settings) -> dict[str, int]:
    """Bytes that each job has in the folder of jobs."""
    folder = settings.home / "jobs"
    return {path.name: _bytes_below(path) for path in folder.iterdir()} if folder.is_dir() else {}


def _bytes_below(folder: Path) -> int:
    return sum(_size(path) for path in folder.rglob("*") if path.is_file())


def _size(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0
