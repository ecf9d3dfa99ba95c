"""Small JSON files that are whole or not there: a checksum inside, an atomic rename outside."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.files import write_atomically


def write_checked(path: Path, data: Mapping[str, Any]) -> None:
    """Writes `data` to `path` unless a sound file is there already."""
    if read_checked(path) is not None:
        return
    body = json.dumps(data, separators=(",", ":"), sort_keys=True)
    text = json.dumps({"sha256": hashlib.sha256(body.encode()).hexdigest()})[:-1] + f', "data": {body}}}'
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.encode(), mode=0o600)


def read_checked(path: Path) -> dict[str, Any] | None:
    """What `write_checked` wrote, or None if there is nothing; a damaged file is removed and counts as nothing."""
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
