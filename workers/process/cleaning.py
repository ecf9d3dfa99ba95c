"""The folder of a job that has ended."""

import contextlib
import shutil

from app.settings import Settings
from workers.process.context import output_folder, scratch_folder


def clean_job(settings: Settings, job_id: str, *, keep: int | None) -> None:
    """Removes the scratch folder and every attempt of an ended job but `keep`, and the folder when nothing is left."""
    folder = settings.job_dir(job_id)
    kept = None if keep is None else output_folder(settings, job_id, keep)
    for entry in (scratch_folder(settings, job_id), *folder.glob("attempt-*")):
        if entry != kept:
            shutil.rmtree(entry, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.rmdir()
