"""Files that a job left beside its report, saved on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from app.cli.client import Client
from app.contracts.errors import DISK_FULL_ERRNOS, ErrorCode, HemostatError


def fetch(client: Client, job_id: str, folder: Path, names: Sequence[str] = ()) -> list[Path]:
    """Saves the named files, or all that the job has, into `folder`; each is there whole or not at all, and takes the
    place of one of its name.

    Raises `HemostatError`: what the service refuses (ARTIFACT_NOT_FOUND names those that there are), PATH_FORBIDDEN
    where the folder cannot be written to, DISK_FULL.
    """
    there = [str(one["name"]) for one in client.artifacts(job_id)["data"]]
    for name in set(names) - set(there):
        client.artifact(job_id, name)  # is refused, with the names that there are, before a folder is made
    return [_save(client, job_id, name, folder) for name in dict.fromkeys(names or there)]


def _save(client: Client, job_id: str, name: str, folder: Path) -> Path:
    if Path(name).name != name or name in {"", ".."}:  # it would lie elsewhere, no matter who gave it
        raise HemostatError(
            ErrorCode.PATH_FORBIDDEN, f"{name!r} is not a file name", hint="give a name without a folder"
        )
    destination = folder / name
    partial = folder / f".{name}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        client.save_artifact(job_id, name, partial)
        partial.replace(destination)
    except OSError as error:
        full = error.errno in DISK_FULL_ERRNOS
        raise HemostatError(
            ErrorCode.DISK_FULL if full else ErrorCode.PATH_FORBIDDEN,
            f"{name} cannot be written into {folder}: {error.strerror or error}",
            hint="make room there, or give another folder",
        ) from error
    finally:
        if partial.is_file():
            partial.unlink()
    return destination.resolve()
