"""The state of a long training on disk, so that the attempt after a lost one goes on where that one was.

One file a step of a recipe, named by the step's key in the checkpoint store: the same source, recipe up to there, text
and versions go on from it, nothing else does. It is removed when the step is done or refused; the folder is the job's
scratch, which goes when the job has ended in whatever way. Nothing of a state that cannot be read or written is an
error: the training then begins again, or goes on unsaved.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

# At least so long from one writing to the next, and at least so many times what the last one took.
EVERY_S = 60.0
_REST = 20
# A state that is larger than this share of the disk's free space is not kept.
SHARE_OF_FREE = 0.25

State = dict[str, Any]


class Resumption:
    """One training's state at `folder`/`key`.pt; without a folder none is kept."""

    def __init__(self, folder: Path | None = None, key: str = "") -> None:
        self._path = None if folder is None else folder / f"{key}.pt"
        self._begin_at = time.monotonic()
        self._rest_s = EVERY_S

    def load(self) -> State | None:
        """What was kept last: tensors on the CPU."""
        if self._path is None or not self._path.is_file():
            return None
        try:
            found: State = torch.load(self._path, map_location="cpu", weights_only=True)
        except Exception:  # a broken file makes torch raise all sorts
            self.drop()
            return None
        return found

    def offer(self, state: Callable[[], State]) -> None:
        """Keeps what `state` gives, if it is time: plain values and tensors, for torch.save."""
        if self._path is None or time.monotonic() - self._begin_at < self._rest_s:
            return
        began = time.monotonic()
        self._keep(self._path, state())
        self._begin_at = time.monotonic()
        self._rest_s = max(EVERY_S, _REST * (self._begin_at - began))

    def drop(self) -> None:
        """Forgets it."""
        if self._path is not None:
            for path in (self._path, _temporary(self._path)):
                path.unlink(missing_ok=True)

    @staticmethod
    def _keep(path: Path, state: State) -> None:
        temporary = _temporary(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if sum(_sizes(state)) > SHARE_OF_FREE * shutil.disk_usage(path.parent).free:
                return
            with temporary.open("wb") as stream:
                torch.save(state, stream)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        except (OSError, RuntimeError):  # torch's own writer says by the latter that the disk is full
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    """One name for all attempts: what a lost one left half-written is written over."""
    return path.with_name(f".{path.name}")


def _sizes(value: Any) -> Iterator[int]:
    """Bytes of every tensor within."""
    if isinstance(value, torch.Tensor):
        yield value.numel() * value.element_size()
    elif isinstance(value, dict):
        for one in value.values():
            yield from _sizes(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _sizes(one)
