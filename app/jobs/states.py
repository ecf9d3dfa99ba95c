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
    """Removes the states that no other job uses, and that nobody reads or writes at this moment."""
    notes = root / _USERS / job_id
    keys = [note.name for note in notes.iterdir()] if notes.is_dir() else []
    shutil.rmtree(notes, ignore_errors=True)
    for key in keys:
        if not any((other / key).exists() for other in (root / _USERS).iterdir()):
            remove_states(root, key)


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
