"""Hidden states on disk, kept by what they depend on, so that a model is run over a text once.

Two bytes a number (bf16; four where the engine computes in float32), memory-mapped. One folder a key:

    - header.json     lengths of the windows, hidden size, dtype, SHA-256 of the states, what they are of
    - hidden.bin      the rows of all windows, one after the other
    - NAME.json       sidecars: small results that belong to these states (the noise floor)

While a pass runs, a thread writes its rows to `partial.bin`, and `partial.json` says how many windows are safely on
disk and what they hash to. `recent.json` says it of windows that outlive their process, but maybe not a power cut. The
pass after a lost one goes on from there. The header appears last, by a rename, and so what has one is whole. A file
that is damaged, or is of another key, counts as absent and is made again.

Locks (`.locks/KEY`): a reader holds a shared one, so that eviction leaves its folder alone; a writer holds an exclusive
one on `KEY.writer`. A writer does not wait for readers: their mapped file lives on when its name goes to another.

Names: T tokens, D hidden size.
"""

import errno
import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch

from app.contracts.errors import DISK_FULL_ERRNOS, ErrorCode, HemostatError
from app.files import write_atomically
from app.jobs.states import HEADER as _HEADER
from app.jobs.states import note_state, remove_states
from app.locks import Lock, try_lock, wait_lock

FORMAT = "hemostat.hidden/2"
_STATES = "hidden.bin"
_PARTIAL = "partial.bin"
_PROGRESS = "partial.json"
_RECENT = "recent.json"
_RESERVED = frozenset({_HEADER, _PROGRESS, _RECENT})
# numpy knows no bf16; what is stored are bit patterns of that width.
_DTYPES: dict[str, tuple[torch.dtype, torch.dtype, np.dtype[Any]]] = {
    "bfloat16": (torch.bfloat16, torch.int16, np.dtype(np.int16)),
    "float16": (torch.float16, torch.int16, np.dtype(np.int16)),
    "float32": (torch.float32, torch.int32, np.dtype(np.int32)),
}
# Rows are forced to disk every so many bytes: a power cut loses no more than that.
_SYNC_BYTES = 256 * 1024 * 1024
# Every so many bytes `recent.json` is renewed: a process that is killed loses no more, and what waits to be written.
_RECENT_BYTES = 8 * 1024 * 1024
# Rows that wait to be written: two steps of the engine.
_ROWS_AHEAD = 2 * 4096
# Left free on the disk for everybody else.
_SPARE_BYTES = 32 * 1024 * 1024

Signature = tuple[int, int, int]
# States whose checksum this process has verified, by path: hashing twenty gigabytes for each job would take its time.
_verified: dict[Path, Signature] = {}


_READ_BYTES = 1 << 24


def signature(file: Path) -> Signature:
    """What changes with a file's content, read without its content: time of change (ns), size (bytes), inode."""
    stat = file.stat()
    return (stat.st_mtime_ns, stat.st_size, stat.st_ino)


def sha256(file: Path, size: int) -> "hashlib._Hash":
    """SHA-256 over the first `size` bytes. OSError where there are fewer."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while size > 0:
            part = stream.read(min(_READ_BYTES, size))
            if not part:
                raise OSError(f"{file.name} ends too early")
            digest.update(part)
            size -= len(part)
    return digest


def _never() -> None:
    pass


class StoredHidden:
    """Hidden states of a whole pass, memory-mapped. Not evicted before `close` or the end of the object."""

    def __init__(self, folder: Path, header: dict[str, Any], lock: Lock) -> None:
        self.meta: dict[str, Any] = header["meta"]
        self.hidden_size: int = header["hidden_size"]
        self.lengths: tuple[int, ...] = tuple(header["lengths"])
        self.dtype, _, pattern = _DTYPES[header["dtype"]]
        self._lock = lock
        self._starts = np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])
        shape = (int(self._starts[-1]), self.hidden_size)
        self._rows = np.memmap(folder / _STATES, dtype=pattern, mode="r", shape=shape)

    def __len__(self) -> int:
        return len(self.lengths)

    def window(self, index: int) -> torch.Tensor:
        """hidden_TD of one window in the engine's dtype: a copy, T its length."""
        rows = self._rows[self._starts[index] : self._starts[index + 1]]
        return torch.from_numpy(np.array(rows)).view(self.dtype)

    def close(self) -> None:
        """Allows the folder to be evicted."""
        self._lock.release()


class Writer:
    """A pass on its way to disk; a context manager.

    `windows_done` windows have been given, those of an earlier attempt included: all of them, where another process
    finished the same pass meanwhile. Left by an exception it keeps what is there for the next attempt, unless the disk
    was full: then it keeps nothing.
    """

    def __init__(
        self,
        store: "ReferenceStore",
        key: str,
        lengths: Sequence[int],
        hidden_size: int,
        meta: dict[str, Any],
        check_cancelled: Callable[[], None],
    ) -> None:
        self._store = store
        self._key = key
        self._folder = store.folder(key)
        self._lengths = [int(length) for length in lengths]
        if not self._lengths or min(self._lengths) < 1 or hidden_size < 1:
            raise ValueError(f"{len(self._lengths)} windows of width {hidden_size}: each needs a row")
        self._size = hidden_size
        self._meta = meta
        self._check_cancelled = check_cancelled
        self._dtype: str | None = None
        self.windows_done = 0
        self._thread = ThreadPoolExecutor(1, "hidden-states")
        self._waiting: deque[tuple[int, Future[None]]] = deque()
        self._rows_waiting = 0
        # The thread's, and after it has ended the caller's.
        self._digest = hashlib.sha256()
        self._written = 0
        self._unsynced = 0
        self._unnoted = 0
        self._failed = False
        self._full = False

    def __enter__(self) -> Self:
        self._lock = wait_lock(
            self._store.writer_lock(self._key), exclusive=True, check_cancelled=self._check_cancelled
        )
        try:
            self._complete = self._store.header(self._key) is not None
            if self._complete:
                self.windows_done = len(self._lengths)
            else:
                self._begin()
        except BaseException:
            self._lock.release()
            raise
        return self

    def append(self, hidden_TD: torch.Tensor) -> None:
        """The states of the next window, on any device, which do not change any more: they are written while the caller
        goes on. Waits if two steps of the engine are not written yet.

        ValueError if shape or dtype are not those of the pass, DISK_FULL if they, or those before them, do not fit.
        """
        if self.windows_done == len(self._lengths):
            raise ValueError(f"all {len(self._lengths)} windows are there")
        needed = (self._lengths[self.windows_done], self._size)
        dtype = str(hidden_TD.dtype).removeprefix("torch.")
        if tuple(hidden_TD.shape) != needed:
            raise ValueError(f"hidden states of shape {tuple(hidden_TD.shape)}, {needed} is needed")
        if dtype not in _DTYPES or self._dtype not in (None, dtype):
            raise ValueError(f"hidden states are {dtype}, {self._dtype or ', '.join(_DTYPES)} is needed")
        self._dtype = dtype
        rows = hidden_TD.detach().cpu().contiguous().view(_DTYPES[dtype][1]).numpy()
        self.windows_done += 1
        self._rows_waiting += len(rows)
        self._waiting.append((len(rows), self._thread.submit(self._put, rows.data.cast("B"))))
        self._wait(_ROWS_AHEAD)

    def _wait(self, most: int) -> None:
        """Until at most `most` rows wait to be written. Raises what writing raised."""
        while self._waiting and (self._rows_waiting > most or self._waiting[0][1].done()):
            rows, written = self._waiting.popleft()
            self._rows_waiting -= rows
            written.result()

    def _put(self, rows: memoryview) -> None:
        """The thread's work: writes a window. What comes after a window that failed has no place in the file."""
        if self._failed:
            return
        with self._on_disk():
            left = rows
            while left:  # unbuffered writes may stop short, and do so where the disk gets full
                left = left[self._file.write(left) :]
            self._digest.update(rows)
            self._written += 1
            self._unsynced += rows.nbytes
            self._unnoted += rows.nbytes
            if self._unsynced >= _SYNC_BYTES:
                self._sync()
            elif self._unnoted >= _RECENT_BYTES:
                self._note()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._complete:
                return
            if kind is None:
                self._commit()
                return
            self._thread.shutdown()
            if self._written and not self._failed:
                with self._on_disk():
                    self._sync()
        finally:
            self._thread.shutdown()
            if not self._complete:
                self._file.close()
            if self._full:
                shutil.rmtree(self._folder, ignore_errors=True)
            self._lock.release()

    def _begin(self) -> None:
        """Goes on where an earlier attempt at the same pass was lost, or starts afresh."""
        kept_bytes = self._resume()
        item = _DTYPES[self._dtype or "bfloat16"][2].itemsize
        with self._on_disk():
            self._store.make_room(sum(self._lengths) * self._size * item - kept_bytes, keep=self._folder)
            self._folder.mkdir(parents=True, exist_ok=True)
            partial = self._folder / _PARTIAL
            self._file = partial.open("r+b" if kept_bytes else "w+b", buffering=0)
            self._file.truncate(kept_bytes)
            self._file.seek(kept_bytes)

    def _resume(self) -> int:
        """Bytes that are kept; sets how many windows they are, their dtype and their hash."""
        for name in (_RECENT, _PROGRESS):
            try:
                progress = json.loads((self._folder / name).read_bytes())
                done, dtype = int(progress["windows_done"]), str(progress["dtype"])
                if progress["plan"] != self._plan() or not 0 < done <= len(self._lengths):
                    continue
                size = sum(self._lengths[:done]) * self._size * _DTYPES[dtype][2].itemsize
                digest = sha256(self._folder / _PARTIAL, size)
                if digest.hexdigest() != progress["sha256"]:
                    continue
            except (OSError, ValueError, KeyError, TypeError):
                continue
            self.windows_done = self._written = done
            self._dtype, self._digest = dtype, digest
            return size
        return 0

    def _plan(self) -> dict[str, Any]:
        return {"format": FORMAT, "key": self._key, "lengths": self._lengths, "hidden_size": self._size}

    def _progress(self) -> bytes:
        written = {"windows_done": self._written, "dtype": self._dtype, "sha256": self._digest.hexdigest()}
        return json.dumps({"plan": self._plan()} | written).encode()

    def _note(self) -> None:
        """Where a killed process was; the disk is not waited for."""
        temporary = self._folder / f".{_RECENT}"
        temporary.write_bytes(self._progress())
        temporary.replace(self._folder / _RECENT)
        self._unnoted = 0

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        write_atomically(self._folder / _PROGRESS, self._progress())
        (self._folder / _RECENT).unlink(missing_ok=True)
        self._unsynced = self._unnoted = 0

    def _commit(self) -> None:
        if self.windows_done != len(self._lengths):
            raise ValueError(f"{self.windows_done} of {len(self._lengths)} windows were given")
        self._wait(0)
        with self._on_disk():
            os.fsync(self._file.fileno())
            states = self._folder / _STATES
            (self._folder / _PARTIAL).replace(states)
            header = self._plan() | {"dtype": self._dtype, "sha256": self._digest.hexdigest(), "meta": self._meta}
            write_atomically(self._folder / _HEADER, json.dumps(header).encode())
            for name in (_PROGRESS, _RECENT):
                (self._folder / name).unlink(missing_ok=True)
        _verified[states] = signature(states)
        self._store.evict(keep=self._folder)

    @contextmanager
    def _on_disk(self) -> Iterator[None]:
        """A full disk is an error that a person can act on, and what is half-written would only keep it full."""
        try:
            yield
        except BaseException as error:
            self._failed = True
            if not isinstance(error, OSError) or error.errno not in DISK_FULL_ERRNOS:
                raise
            self._full = True
            raise _disk_full("hidden states", self._store.root) from error


class ReferenceStore:
    """Content-addressed hidden states below `root`, together at most `budget_bytes`, least recently used first out.

    What is open or being written is never removed, and so may exceed the budget. Several processes may share one root.
    `user`: the job that is noted as a user of every key that is opened or written (`app.jobs.files`).
    """

    def __init__(self, root: Path, budget_bytes: int, *, user: str = "") -> None:
        self.root = root
        self.budget_bytes = budget_bytes
        self._user = user
        root.mkdir(parents=True, exist_ok=True)

    @staticmethod
    def key(**parts: str | int) -> str:
        """SHA-256, hex, over everything that the states depend on: weights, tokenizer, text, window, engine."""
        return hashlib.sha256(json.dumps({"format": FORMAT, **parts}, sort_keys=True).encode()).hexdigest()

    def folder(self, key: str) -> Path:
        """Where a key's files are."""
        return self.root / key

    def writer_lock(self, key: str) -> Path:
        """What the writer of a key holds exclusively."""
        return self.root / ".locks" / f"{key}.writer"

    def open(self, key: str, *, check_cancelled: Callable[[], None] = _never) -> StoredHidden | None:
        """The states of a whole pass, or None. Damaged or foreign ones are removed, unless they are being rewritten.

        The checksum is verified the first time that a process meets a file, and again when the file has changed.
        """
        folder = self.folder(key)
        if not (folder / _HEADER).exists():
            return None
        self._note(key)
        lock = wait_lock(self._reader_lock(key), exclusive=False, check_cancelled=check_cancelled)
        header = self.header(key)
        if header is None:
            lock.release()
            self._discard(key)
            return None
        os.utime(folder / _HEADER)
        return StoredHidden(folder, header, lock)

    def write(
        self,
        key: str,
        lengths: Sequence[int],
        hidden_size: int,
        meta: dict[str, Any],
        *,
        check_cancelled: Callable[[], None] = _never,
    ) -> Writer:
        """A context manager that takes the states of each window in turn and commits them at its end.

        Entering waits for another process that writes the same key, makes room, and raises DISK_FULL if there is
        none.
        """
        self._note(key)
        return Writer(self, key, lengths, hidden_size, meta, check_cancelled)

    def _note(self, key: str) -> None:
        """What a job used goes with the job when that is deleted, unless another job uses it."""
        if self._user:
            note_state(self.root, self._user, key)

    def get_sidecar(self, key: str, name: str) -> dict[str, Any] | None:
        """A small result kept beside the states, or None."""
        file = self._sidecar(key, name)
        try:
            found = json.loads(file.read_bytes())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def put_sidecar(self, key: str, name: str, value: dict[str, Any]) -> None:
        """Keeps a small result beside the states: whole, or not at all."""
        file = self._sidecar(key, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(value).encode())

    def header(self, key: str) -> dict[str, Any] | None:
        """The header of a key, if its states are what it says."""
        states = self.folder(key) / _STATES
        try:
            header: dict[str, Any] = json.loads((self.folder(key) / _HEADER).read_bytes())
            item = _DTYPES[header["dtype"]][2].itemsize
            size = sum(header["lengths"]) * header["hidden_size"] * item
            if (header["format"], header["key"], states.stat().st_size) != (FORMAT, key, size):
                return None
            if not isinstance(header["meta"], dict):
                return None
            found = signature(states)
            if _verified.get(states) != found:
                if sha256(states, size).hexdigest() != header["sha256"]:
                    return None
                _verified[states] = found
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return header

    def make_room(self, needed: int, *, keep: Path | None = None) -> None:
        """Evicts until `needed` more bytes fit the budget and the disk. OSError(ENOSPC) where the disk has no room, not
        even if all were evicted; then nothing is."""

        def missing() -> int:
            return needed + _SPARE_BYTES - shutil.disk_usage(self.root).free

        others = [(folder, size) for folder, size in self._by_use() if folder != keep]
        if missing() <= sum(size for _, size in others):
            self.evict(room_for=needed, keep=keep)
            for folder, _ in others:
                if missing() <= 0:
                    return
                remove_states(self.root, folder.name)
        if missing() > 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def evict(self, *, room_for: int = 0, keep: Path | None = None) -> None:
        """Removes the least recently used folders that no one reads or writes, until the budget holds."""
        entries = self._by_use()
        total = room_for + sum(size for _, size in entries)
        for folder, size in entries:
            if total <= self.budget_bytes:
                return
            if folder != keep and remove_states(self.root, folder.name):
                total -= size

    def _by_use(self) -> list[tuple[Path, int]]:
        """(folder, bytes), least recently used first."""
        entries = []
        for folder in self.root.iterdir():
            if folder.name.startswith(".") or not folder.is_dir():
                continue
            try:
                stats = {file.name: file.stat() for file in folder.iterdir()}
                marker = stats.get(_HEADER) or stats.get(_PROGRESS) or folder.stat()
            except FileNotFoundError:  # removed meanwhile
                continue
            entries.append((marker.st_mtime_ns, folder, sum(stat.st_size for stat in stats.values())))
        return [(folder, size) for _, folder, size in sorted(entries)]

    def _discard(self, key: str) -> None:
        """Unmakes an entry that is not sound, unless somebody is writing it again. Who has mapped it keeps what is
        mapped."""
        writer = try_lock(self.writer_lock(key), exclusive=True)
        if writer is None:
            return
        if self.header(key) is None:
            for file in list(self.folder(key).glob("*")):
                if file.name not in (_PARTIAL, _PROGRESS, _RECENT):
                    file.unlink(missing_ok=True)
        writer.release()

    def _reader_lock(self, key: str) -> Path:
        return self.root / ".locks" / key

    def _sidecar(self, key: str, name: str) -> Path:
        file = f"{name}.json"
        if file in _RESERVED or Path(file).name != file or name.startswith("."):
            raise ValueError(f"{name!r} is no name for a sidecar")
        return self.folder(key) / file


def _disk_full(what: str, root: Path) -> HemostatError:
    free = shutil.disk_usage(root).free // 2**20
    return HemostatError(
        ErrorCode.DISK_FULL,
        f"the disk has no space for {what}: {free} MiB are free on the disk that holds the reference store",
        hint="free space below HEMOSTAT_HOME, lower HEMOSTAT_REFERENCE_BUDGET_BYTES, or compare over fewer documents",
    )
