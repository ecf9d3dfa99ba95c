"""Hidden states on disk, kept by what they depend on, so that a model is run over a text once.

2·D bytes a token (bf16), memory-mapped. One folder a key:

    header.json   lengths of the windows, hidden size, SHA-256 of the states, what they are of
    hidden.bf16   the rows of all windows, one after the other
    NAME.json     sidecars: small results that belong to these states (the noise floor)

While a pass runs the rows stand in `partial.bf16`, with `partial.json` saying how many windows are safely on disk: the
pass after a lost one goes on from there. A folder that is damaged, or is of another key, is removed and counts as absent.

Names: T tokens, D hidden size.
"""

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import torch

FORMAT = "hemostat.hidden/1"
_HEADER = "header.json"
_STATES = "hidden.bf16"
_PARTIAL = "partial.bf16"
_PROGRESS = "partial.json"
_ITEM_BYTES = 2
# Rows reach the disk for sure at least so often, in bytes written.
_SYNC_BYTES = 8 * 1024 * 1024
_CHUNK = 1 << 24


class StoredHidden:
    """Hidden states of a whole pass, memory-mapped. The folder is not evicted while this object is open."""

    def __init__(self, folder: Path, header: dict[str, Any], lock: BinaryIO) -> None:
        self.meta: dict[str, Any] = header["meta"]
        self.hidden_size: int = header["hidden_size"]
        self.lengths: tuple[int, ...] = tuple(header["lengths"])
        self._lock = lock
        self._starts = np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])
        self._rows = np.memmap(
            folder / _STATES, dtype=np.int16, mode="r", shape=(int(self._starts[-1]), self.hidden_size)
        )

    def __len__(self) -> int:
        return len(self.lengths)

    def window(self, index: int) -> torch.Tensor:
        """hidden_TD bf16 of one window: a copy, T its length."""
        rows = self._rows[self._starts[index] : self._starts[index + 1]]
        return torch.from_numpy(np.array(rows)).view(torch.bfloat16)

    def close(self) -> None:
        """Allows the folder to be evicted."""
        self._lock.close()


class Writer:
    """A pass on its way to disk. `windows_done` windows are there already from an earlier attempt."""

    def __init__(
        self, store: "ReferenceStore", key: str, lengths: Sequence[int], size: int, meta: dict[str, Any]
    ) -> None:
        self._store = store
        self._folder = store.folder(key)
        self._lengths = [int(length) for length in lengths]
        self._plan = {"format": FORMAT, "key": key, "lengths": self._lengths, "hidden_size": size, "meta": meta}
        self._size = size
        self._unsynced = 0
        self.windows_done = 0

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self._folder, fcntl.LOCK_EX)
        self.windows_done = self._kept()
        partial = self._folder / _PARTIAL
        kept_bytes = sum(self._lengths[: self.windows_done]) * self._size * _ITEM_BYTES
        self._file = partial.open("r+b" if partial.exists() else "w+b")
        self._file.truncate(kept_bytes)
        self._file.seek(kept_bytes)
        return self

    def append(self, hidden_TD: torch.Tensor) -> None:
        """The states of the next window. ValueError where their shape is not the one that was announced."""
        expected = (self._lengths[self.windows_done], self._size)
        if tuple(hidden_TD.shape) != expected:
            raise ValueError(f"hidden states of shape {tuple(hidden_TD.shape)}, {expected} is needed")
        rows = hidden_TD.to(torch.bfloat16).contiguous().view(torch.int16).numpy()
        self._file.write(rows.data)
        self.windows_done += 1
        self._unsynced += rows.nbytes
        if self._unsynced >= _SYNC_BYTES:
            self._sync()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._commit()
            elif isinstance(error, OSError):
                # A full disk: what is half-written would only keep it full.
                shutil.rmtree(self._folder, ignore_errors=True)
            else:
                self._sync()
        finally:
            self._file.close()
            self._lock.close()

    def _kept(self) -> int:
        """Windows that an earlier attempt at the same pass left on disk."""
        try:
            progress = json.loads((self._folder / _PROGRESS).read_text())
            size = (self._folder / _PARTIAL).stat().st_size
            done = int(progress["windows_done"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0
        needed = sum(self._lengths[:done]) * self._size * _ITEM_BYTES
        return done if progress.get("plan") == self._plan and size >= needed else 0

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        write_json(self._folder / _PROGRESS, {"plan": self._plan, "windows_done": self.windows_done})
        self._unsynced = 0

    def _commit(self) -> None:
        if self.windows_done != len(self._lengths):
            raise ValueError(f"{self.windows_done} of {len(self._lengths)} windows were given")
        self._file.flush()
        os.fsync(self._file.fileno())
        (self._folder / _PARTIAL).replace(self._folder / _STATES)
        header = self._plan | {"sha256": _sha256(self._folder / _STATES)}
        write_json(self._folder / _HEADER, header)
        (self._folder / _PROGRESS).unlink(missing_ok=True)
        self._store.evict(keep=self._folder)


class ReferenceStore:
    """Content-addressed hidden states below `root`, together at most `budget_bytes`, least recently used first out.

    What is open is never removed. Several processes may share one root.
    """

    def __init__(self, root: Path, budget_bytes: int) -> None:
        self.root = root
        self.budget_bytes = budget_bytes
        self._verified: dict[str, tuple[int, int]] = {}
        root.mkdir(parents=True, exist_ok=True)

    @staticmethod
    def key(**parts: str | int) -> str:
        """SHA-256, hex, over everything that the states depend on: weights, tokenizer, text, window, engine."""
        return hashlib.sha256(json.dumps({"format": FORMAT, **parts}, sort_keys=True).encode()).hexdigest()

    def folder(self, key: str) -> Path:
        """Where a key's files are."""
        return self.root / key

    def open(self, key: str) -> StoredHidden | None:
        """The states of a whole pass, or None. A damaged or foreign folder is removed.

        The checksum is verified when a process first opens a file, and again when the file has changed.
        """
        folder = self.folder(key)
        if not (folder / _HEADER).is_file():
            return None
        lock = _lock(folder, fcntl.LOCK_SH)
        header = self._sound(key)
        if header is None:
            lock.close()
            shutil.rmtree(folder, ignore_errors=True)
            return None
        os.utime(folder / _HEADER)
        return StoredHidden(folder, header, lock)

    def write(self, key: str, lengths: Sequence[int], hidden_size: int, meta: dict[str, Any]) -> Writer:
        """A context manager that takes the states of each window in turn and commits them at its end.

        Left by an exception it keeps what is there for the next attempt; left by an OSError (a full disk) it keeps
        nothing.
        """
        return Writer(self, key, lengths, hidden_size, meta)

    def get_sidecar(self, key: str, name: str) -> dict[str, Any] | None:
        """A small result kept beside the states, or None."""
        try:
            found = json.loads((self.folder(key) / f"{name}.json").read_text())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def put_sidecar(self, key: str, name: str, value: dict[str, Any]) -> None:
        """Keeps a small result beside the states."""
        write_json(self.folder(key) / f"{name}.json", value)

    def evict(self, *, keep: Path | None = None) -> None:
        """Removes the least recently used folders that nobody has open, until the budget holds."""
        entries = []
        for folder in self.root.iterdir():
            if folder.is_dir():
                try:
                    marker = folder / _HEADER
                    used = (marker if marker.exists() else folder).stat().st_mtime
                    entries.append((used, sum(file.stat().st_size for file in folder.iterdir()), folder))
                except FileNotFoundError:
                    continue
        total = sum(size for _, size, _ in entries)
        for _, size, folder in sorted(entries):
            if total <= self.budget_bytes:
                return
            if folder == keep:
                continue
            try:
                lock = _lock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:  # open somewhere
                continue
            shutil.rmtree(folder, ignore_errors=True)
            lock.close()
            total -= size

    def _sound(self, key: str) -> dict[str, Any] | None:
        """The header, if the states are what it says."""
        folder = self.folder(key)
        try:
            header: dict[str, Any] = json.loads((folder / _HEADER).read_text())
            stat = (folder / _STATES).stat()
            expected = sum(header["lengths"]) * header["hidden_size"] * _ITEM_BYTES
            if header["format"] != FORMAT or header["key"] != key or stat.st_size != expected:
                return None
            signature = (stat.st_mtime_ns, stat.st_size)
            if self._verified.get(key) != signature:
                if _sha256(folder / _STATES) != header["sha256"]:
                    return None
                self._verified[key] = signature
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return header


def _lock(folder: Path, operation: int) -> BinaryIO:
    """An flock on the folder, until the returned file is closed."""
    file = (folder / ".lock").open("a+b")
    try:
        fcntl.flock(file, operation)
    except OSError:
        file.close()
        raise
    return file


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def write_json(file: Path, value: dict[str, Any]) -> None:
    """Writes a JSON file: whole, on disk, or not at all."""
    partial = file.with_name(f".{file.name}.{os.getpid()}-{time.monotonic_ns()}")
    try:
        with partial.open("w") as stream:
            json.dump(value, stream)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(file)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
