"""Long reductions over rows, kept on disk: what one attempt has summed, the next does not sum again.

A fit and a test are a sequence of reductions (a divergence, a gradient, the values of every row), each over chunks of
rows. What is between them is cheap, and follows from them. So the attempt after a stopped one goes through the same
sequence and takes finished reductions from disk. It goes on with the unfinished one at the chunk where that was
stopped. On a CPU with one number of threads it ends in the same bits as an attempt that was not stopped.

One file a reduction, `NAME.safetensors`, with how many chunks it holds. An exception, as a stop is, leaves what was
reduced so far; a killed process loses the reduction at hand. Nothing of a state that cannot be read or written is an
error: it is then computed again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from app.files import write_atomically

State = Mapping[str, torch.Tensor]
# A state that is larger than this share of the disk's free space is not kept.
SHARE_OF_FREE = 0.25
Part = TypeVar("Part")
# Raised whenever chunks become larger or smaller, or sums others: states of another format are computed again.
_FORMAT: Final = 1
# Beside the state's own tensors: chunks that it holds, and whether those are all.
_DONE: Final = f"reductions.done.{_FORMAT}"


class Reductions:
    """The reductions of one computation in `folder`; without a folder none is kept."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._named: set[str] = set()

    def at(self, name: str) -> Reductions:
        """Those of a part of the computation, whose names are its own."""
        return Reductions(None if self._folder is None else self._folder / name)

    def of(self, name: str, start: State, parts: Iterable[Part], add: Callable[[State, Part], State]) -> State:
        """`start` with all of `parts` added, in their order. `add` gives a new state and leaves the given one alone.

        What was kept goes to the device of its tensor in `start`, to the host if there is none.
        `parts` must come in the same order each time; those that are done are passed over. Raises ValueError for a name
        that was used before.
        """
        if self._folder is None:
            for part in parts:
                start = add(start, part)
            return start
        if name in self._named:
            raise ValueError(f"there was a reduction {name!r} already")
        self._named.add(name)
        file = self._folder / f"{name}.safetensors"
        state, found, whole = _read(file) or (start, 0, False)
        state = {key: tensor.to(start.get(key, tensor).device) for key, tensor in state.items()}
        if whole:
            return state
        done = found
        try:
            for part in islice(parts, found, None):
                state = add(state, part)
                done += 1
        except BaseException:
            if done > found:
                _write(file, state, done, whole=False)
            raise
        _write(file, state, done, whole=True)
        return state

    def columns(self, name: str, parts: Iterable[Part], of: Callable[[Part], State]) -> State:
        """What `of` gives of each part, one after the other, on the host: every tensor has a row for each row of the
        part."""

        def add(state: State, part: Part) -> State:
            given = {key: rows.cpu() for key, rows in of(part).items()}
            return {key: torch.cat([state[key], rows]) if key in state else rows for key, rows in given.items()}

        return self.of(name, {}, parts, add)

    def drop(self) -> None:
        """Forgets them."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _read(file: Path) -> tuple[State, int, bool] | None:
    """(state, chunks done, whether those are all); None if nothing sound is there."""
    try:
        state = load(file.read_bytes())
        done, whole = state.pop(_DONE).tolist()
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None
    return state, int(done), bool(whole)


def _write(file: Path, state: State, done: int, *, whole: bool) -> None:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        if size <= SHARE_OF_FREE * shutil.disk_usage(file.parent).free:
            write_atomically(file, save(tensors | {_DONE: torch.tensor([done, int(whole)])}))
