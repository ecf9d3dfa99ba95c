"""The folder of a job that has ended, and the room that is left."""

import contextlib
import shutil
from pathlib import Path
from typing import Final

from app.settings import Settings
from workers.process.context import output_folder, scratch_folder

# With less space than this below HEMOSTAT_HOME its Valkey cannot be relied on to write.
ROOM_BYTES: Final = 16 * 1024**2


def is_full(home: Path) -> bool:
    """Whether the disk of the home folder has hardly any room."""
    try:
        return shutil.disk_usage(home).free < ROOM_BYTES
    except OSError:
        return False


def clean_job(settings: Settings, job_id: str, *, keep: int | None) -> None:
    """Removes the scratch folder and every attempt of an ended job but `keep`, and the folder when nothing is left."""
    folder = settings.job_dir(job_id)
    kept = None if keep is None else output_folder(settings, job_id, keep)
    for entry in (scratch_folder(settings, job_id), *folder.glob("attempt-*")):
        if entry != kept:
            shutil.rmtree(entry, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.rmdir()
