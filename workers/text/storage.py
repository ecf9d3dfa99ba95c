"""Small JSON files that are whole or not there: a checksum inside, an atomic rename outside."""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.contracts.errors import DISK_FULL_ERRNOS, ErrorCode, HemostatError


def write_checked(path: Path, data: Mapping[str, Any]) -> None:
    """Writes `data` to `path` unless a sound file is there already. Raises DISK_FULL."""
    if read_checked(path) is not None:
        return
    body = json.dumps(data, separators=(",", ":"), sort_keys=True)
    text = json.dumps({"sha256": hashlib.sha256(body.encode()).hexdigest()})[:-1] + f', "data": {body}}}'
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except OSError as error:
        if error.errno not in DISK_FULL_ERRNOS:
            raise
        raise HemostatError(
            ErrorCode.DISK_FULL,
            "The disk is full: sampled text could not be stored.",
            hint="Free space below HEMOSTAT_HOME, or move it.",
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                Path(temporary).unlink()


def read_checked(path: Path) -> dict[str, Any] | None:
    """What `write_checked` wrote, or None where there is nothing; a damaged file is removed and counts as nothing."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        text = ""
    try:
        outer = json.loads(text)
        data = outer["data"]
        body = json.dumps(data, separators=(",", ":"), sort_keys=True)
        if isinstance(data, dict) and outer["sha256"] == hashlib.sha256(body.encode()).hexdigest():
            return data
    except (ValueError, KeyError, TypeError):
        pass
    path.unlink(missing_ok=True)
    return None
