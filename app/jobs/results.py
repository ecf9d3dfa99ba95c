"""What a job left on disk: its report and its artifacts, read only through names that the record holds."""

import json
import mimetypes
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from app.contracts.errors import CATALOGUE, ErrorCode, HemostatError
from app.contracts.job import JobStatus
from app.jobs.record import JOBS_PATH, JobRecord
from app.settings import Settings

_TYPES: Final = {
    ".parquet": "application/vnd.apache.parquet",
    ".npz": "application/octet-stream",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
}
WAIT_S: Final = 5


@dataclass(frozen=True)
class Artifact:
    """A file of a job that succeeded, and its state when it was found."""

    name: str
    path: Path
    media_type: str
    state: os.stat_result


def require_report(record: JobRecord) -> str:
    """The report's path below the job's folder. Raises JOB_NOT_FINISHED, which says why there is none."""
    job = record.job
    if job.status is JobStatus.SUCCEEDED and record.report is not None:
        return record.report
    if job.status is JobStatus.FAILED and job.error is not None:
        raise HemostatError(
            ErrorCode.JOB_NOT_FINISHED,
            f"The job failed ({job.error.code.value}): {job.error.detail}",
            hint=job.error.hint or "Remove the cause, then submit it again.",
        )
    if job.status is JobStatus.CANCELLED:
        raise HemostatError(
            ErrorCode.JOB_NOT_FINISHED, "The job was cancelled; it has no result.", hint="Submit it again."
        )
    raise HemostatError(
        ErrorCode.JOB_NOT_FINISHED,
        f"The job is {job.status.value}: phase {job.progress.phase}, {job.progress.done} of {job.progress.total}.",
        hint=f"Follow {JOBS_PATH}/{job.id}/events: it ends when the job does.",
        retry_after_s=WAIT_S,
    )


def read_report(record: JobRecord, settings: Settings) -> bytes:
    """The report as it was written. Raises JOB_NOT_FINISHED, or ARTIFACT_NOT_FOUND if the file is gone."""
    path = settings.job_dir(record.job.id) / require_report(record)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise gone("report") from None


def render_report(text: bytes) -> str:
    """The report as a self-contained page."""
    from app.reports.render import render

    report: dict[str, Any] = json.loads(text)
    return render(report)


def artifacts(record: JobRecord, settings: Settings) -> list[Artifact]:
    """The artifacts that the record names and the disk holds. Raises JOB_NOT_FINISHED."""
    folder = (settings.job_dir(record.job.id) / require_report(record)).parent
    states = {name: _state(folder / name) for name in record.job.artifacts}
    return [Artifact(name, folder / name, _media_type(name), state) for name, state in states.items() if state]


def artifact(record: JobRecord, settings: Settings, name: str) -> Artifact:
    """One of them. Raises JOB_NOT_FINISHED or ARTIFACT_NOT_FOUND."""
    for found in artifacts(record, settings):
        if found.name == name:
            return found
    if name in record.job.artifacts:
        raise gone("artifact")
    names = ", ".join(record.job.artifacts)
    raise HemostatError(
        ErrorCode.ARTIFACT_NOT_FOUND,
        "The job has no artifact of that name.",
        hint=f"It has: {names}." if names else "It has none.",
    )


def gone(what: str) -> HemostatError:
    """ARTIFACT_NOT_FOUND for a file that the record names and the disk no longer holds."""
    return HemostatError(
        ErrorCode.ARTIFACT_NOT_FOUND,
        f"The {what}'s file is gone from the disk. {CATALOGUE[ErrorCode.ARTIFACT_NOT_FOUND].title}.",
        hint="The file was removed, or the API and the worker do not share HEMOSTAT_HOME.",
    )


def _media_type(name: str) -> str:
    suffix = Path(name).suffix
    return _TYPES.get(suffix) or mimetypes.types_map.get(suffix) or "application/octet-stream"


def _state(path: Path) -> os.stat_result | None:
    """That of a file; None for a link, a folder, and where there is nothing."""
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found if stat.S_ISREG(found.st_mode) else None
