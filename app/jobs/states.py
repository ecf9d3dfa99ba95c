"""Hidden states go with the last job that used them.

The worker keeps them in a store of their own (`workers.distributions.reference_store`), a folder a key. Which job used
which is noted beside: `.users/JOB/KEY`, empty files.
"""

import contextlib
import shutil
from pathlib import Path
from typing import Final

from app.locks import try_lock

HEADER: Final = "header.json"  # what has none is no entry
_USERS: Final = ".users"


def note_state(root: Path, job_id: str, key: str) -> None:
    """The job uses the states of this key."""
    notes = root / _USERS / job_id
    notes.mkdir(parents=True, exist_ok=True)
    (notes / key).touch()


def drop_states(root: Path, job_id: str) -> None:
    """Removes the states that no other job uses.

    The note of a state stays while another process reads, writes or removes states: a later call removes it.
    """
    notes = root / _USERS / job_id
    lock = try_lock(root / ".locks" / _USERS, exclusive=True) if notes.is_dir() else None
    if lock is None:
        return
    try:
        others = [other for other in (root / _USERS).iterdir() if other != notes]
        for note in list(notes.glob("*")):  # none where another process was first
            if any((other / note.name).exists() for other in others) or remove_states(root, note.name):
                note.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # a note stays, or is new
            notes.rmdir()
    finally:
        lock.release()


def users(root: Path) -> list[str]:
    """Ids of the jobs that states are noted for."""
    with contextlib.suppress(FileNotFoundError):
        return [notes.name for notes in (root / _USERS).iterdir()]
    return []


def remove_states(root: Path, key: str) -> bool:
    """Removes one key's folder unless it is read or written; whether it is gone."""
    folder, locks = root / key, []
    try:
        for name in (f"{key}.writer", key):
            lock = try_lock(root / ".locks" / name, exclusive=True)
            if lock is None:
                return False
            locks.append(lock)
        # Should this process die in the middle, it is no entry any more.
        with contextlib.suppress(FileNotFoundError):
            (folder / HEADER).unlink()
        shutil.rmtree(folder, ignore_errors=True)
        return not folder.exists()
    finally:
        for lock in locks:
            lock.release()
