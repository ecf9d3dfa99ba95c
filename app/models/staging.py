"""Where an import writes a checkpoint until it is complete: a folder beside the final one, known by who writes it.

Anyone who started the import finds by its process id what it has left when it could not clean up itself.
"""

from __future__ import annotations

import shutil
from pathlib import Path


def staging_prefix(destination: Path, pid: int) -> str:
    """How the name of the folder begins in which the process `pid` writes what becomes `destination`."""
    return f".{destination.name}-{pid}-"


def remove_staged(destination: Path, pid: int) -> tuple[Path, ...]:
    """Removes what the process `pid`, which has ended, left of `destination`; answers what could not be removed."""
    prefix = staging_prefix(destination, pid)

    def staged() -> tuple[Path, ...]:
        folder = destination.parent
        return tuple(one for one in folder.iterdir() if one.name.startswith(prefix)) if folder.is_dir() else ()

    for folder in staged():
        shutil.rmtree(folder, ignore_errors=True)
    return staged()
