"""Hidden states go with the last job that used them.

The worker keeps them in a store of their own (`workers.distributions.reference_store`), a folder a key. Which job used
which is noted beside: `.users/JOB/KEY`, empty files.
"""

import contextlib
import shutil
from pathlib import Path
from typing import Final

from app.locks import try_lock, wait_lock

HEADER: Final = "header.json"  # what has none is no entry
_USERS: Final = ".users"


def note_state(root: Path, job_id: str, key: str) -> None:
    """The job uses the states of this key."""
    notes = root / _USERS / job_id
    notes.mkdir(parents=True, exist_ok=True)
    (notes / key).touch()


def drop_states(root: Path, job_id: str) -> None:
    """Removes the states that no other job uses, and that nobody reads or writes at this moment.

    The notes go last: should this process die before, the next call finds them. Of two jobs that end at one time the
    second removes what both used.
    """
    notes = root / _USERS / job_id
    if not notes.is_dir():
        return
    lock = wait_lock(root / ".locks" / _USERS, exclusive=True, check_cancelled=lambda: None)
    try:
        others = [other for other in (root / _USERS).iterdir() if other != notes]
        for note in list(notes.glob("*")):  # none where another process was first
            if not any((other / note.name).exists() for other in others):
                remove_states(root, note.name)
        shutil.rmtree(notes, ignore_errors=True)
    finally:
        lock.release()


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
