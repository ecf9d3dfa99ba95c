"""The hidden states that a request was served with: files that the serving process writes and the shadow takes away.

`deployments/<id>/hidden/<request>.bin`: one row of D bfloat16 numbers (little endian) for each generated token, the
last hidden state before any correction, nothing else. They are guarded like text: read once, removed with the sample
whatever becomes of it, and swept when they are as old as samples may grow.
"""

from __future__ import annotations

import contextlib
import logging
import re
from pathlib import Path

import numpy as np
import torch

from app.deployments.hidden import FOLDER

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,200}")


def take(deployment: Path, name: str | None, *, rows: int, hidden_size: int) -> torch.Tensor | None:
    """The hidden states of a sample's generated tokens, (rows, D) bfloat16, and the file is gone; None: not known.

    `name` is what the sample says: a file below the deployment's folder, in `hidden/` or by its bare name. Rows beyond
    the answer's tokens are left out: a stop string is found after the token that completes it. A file that has fewer is
    removed.
    """
    file = _file(deployment, name)
    if file is None:
        return None
    try:
        data = np.fromfile(file, dtype=np.int16)
    except OSError:
        return None
    finally:
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)
    if data.size % hidden_size or data.size < rows * hidden_size:
        logger.warning("a served request left %d numbers for %d rows of %d", data.size, rows, hidden_size)
        return None
    return torch.from_numpy(data[: rows * hidden_size]).view(torch.bfloat16).view(rows, hidden_size)


def there(deployment: Path, name: str | None) -> bool:
    """Whether the file is whole: the serving process gives it its name when the request has ended."""
    file = _file(deployment, name)
    return file is not None and file.is_file()


def discard(deployment: Path, name: str | None) -> None:
    """Removes the file of a sample that is not scored."""
    file = _file(deployment, name)
    if file is not None:
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)


def _file(deployment: Path, name: str | None) -> Path | None:
    """The file; a name that points elsewhere is none."""
    bare = (name or "").removeprefix(f"{FOLDER}/")
    if _NAME.fullmatch(bare) is None:
        return None
    return deployment / FOLDER / bare
