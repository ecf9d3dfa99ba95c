"""Hidden states of sampled requests that no one came for: as private as text, and gone when they are as old as samples
may grow.

The engine process and the shadow process remove them while they work. This is for when they do not: an engine without
traffic, a process that has gone.
"""

import contextlib
import time
from pathlib import Path
from typing import Final

from app.settings import Settings

FOLDER: Final = "hidden"


def sweep(deployment: Path, older_than_s: float) -> int:
    """Removes the files of one deployment's folder that were last written so long ago; how many."""
    removed = 0
    before = time.time() - older_than_s
    with contextlib.suppress(OSError):
        for file in (deployment / FOLDER).iterdir():
            with contextlib.suppress(OSError):
                if file.is_file() and file.stat().st_mtime < before:
                    file.unlink(missing_ok=True)
                    removed += 1
    return removed


def sweep_all(settings: Settings) -> int:
    """`sweep` of every deployment."""
    root = settings.home / "deployments"
    folders = list(root.iterdir()) if root.is_dir() else []
    return sum(sweep(folder, settings.shadow_expiry_s) for folder in folders)
