"""Folders of jobs."""

from pathlib import Path

from app.settings import Settings
from workers.process.context import output_folder, scratch_folder


def fill_job(settings: Settings, job_id: str) -> list[Path]:
    """A file in the scratch folder and in those of three attempts."""
    folders = [scratch_folder(settings, job_id), *(output_folder(settings, job_id, attempt) for attempt in (1, 2, 10))]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "file").touch()
    return folders
