"""Checkpoints that the service made, kept by content: the key says what is in the folder, so it is made once.

Layout below the root: one folder a key; `.staging-KEY-…` while a build runs; `.locks/KEY`, held with flock: exclusively
by who builds or removes, shared by who uses (a pin). The kernel drops the locks of a process that dies, so no pin and
no build outlives its process, and what a dead build left is recognised and removed.
"""

import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from safetensors import SafetensorError

from app.contracts.errors import DISK_FULL_ERRNOS, ErrorCode, HemostatError
from app.locks import Lock, try_lock
from workers.surgery.callbacks import CheckCancelled, never_cancelled
from workers.surgery.files import files_of, give_usual_modes, publish

KEY = re.compile(r"[0-9a-f]{64}")
RECORD = "entry.json"
# How safetensors, whose errors are no OSError, shows the system's.
_IN_WORDS = re.compile(r"\(os error (\d+)\)")
_POLL_S = 0.05


@dataclass(frozen=True)
class StoredCheckpoint:
    """A folder of the store, pinned: not evicted before `release`, the end of `with`, or the end of the object."""

    path: Path
    key: str
    bytes: int
    built: bool
    _pin: Lock
    _store: "CheckpointStore"

    def release(self) -> None:
        """Allows the folder to be evicted; at once, where the store is over its budget."""
        self._pin.release()
        self._store.evict()

    def __enter__(self) -> "StoredCheckpoint":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class CheckpointStore:
    """Content-addressed folders below `root` that together take at most `budget_bytes`, least recently used first out.

    The budget is for what is not in use. What is pinned is never removed. What was used last goes only for the next
    build: the job after it is likely to need it, and one large model can exceed the budget. Several processes may
    share one root.
    """

    def __init__(self, root: Path, budget_bytes: int) -> None:
        self.root = root
        self.budget_bytes = budget_bytes
        self._locks = root / ".locks"
        self._locks.mkdir(parents=True, exist_ok=True)
        self._sweep()

    def get(self, key: str) -> StoredCheckpoint | None:
        """The entry, pinned, or None. One that is being built is not there yet."""
        lock = self._lock(key, exclusive=False)
        if lock is None:
            return None
        size = self._is_whole(key)
        if size is None:
            lock.release()
            return None
        now = time.time_ns()  # the kernel's own stamp is too coarse to tell two uses apart
        os.utime(self.root / key / RECORD, ns=(now, now))
        return StoredCheckpoint(self.root / key, key, size, False, lock, self)

    def get_or_build(
        self,
        key: str,
        build: Callable[[Path], None],
        *,
        expected_bytes: int = 0,
        scratch_bytes: int = 0,
        check_cancelled: CheckCancelled = never_cancelled,
    ) -> StoredCheckpoint:
        """The entry, pinned; made by `build(folder)` where it is not there. Nothing is seen under the key before the
        build is complete and on disk, and nothing stays of one that fails.

        While another process builds the same key, waits for it. Makes room first: within the budget for
        `expected_bytes`, on the disk also for `scratch_bytes` of working files. Raises `HemostatError(DISK_FULL)` if
        the disk is full or has no room for them, and whatever `build` or `check_cancelled` raises.
        """
        if KEY.fullmatch(key) is None:
            raise ValueError(f"a key is a SHA-256 in hex, not {key!r}")
        built = False
        while True:
            found = self.get(key)
            if found is not None:
                return replace(found, built=built)
            lock = self._lock(key)
            if lock is None:
                check_cancelled()
                time.sleep(_POLL_S)
                continue
            try:
                if self._is_whole(key) is None:
                    self._build(key, build, expected_bytes, scratch_bytes)
                    built = True
            finally:
                self._drop_unused(key)
                lock.release()

    def evict(self, *, room_for: int = 0) -> int:
        """Removes what was used longest ago, until the rest and `room_for` bytes fit the budget; returns how many
        bytes were freed. Skips what is in use, and what was used last unless `room_for` asks for its place."""
        entries = sorted(self._entries(), key=lambda entry: entry[1])
        total = sum(size for _, _, size in entries)
        freed = 0
        for key, _, size in entries if room_for else entries[:-1]:
            if total + room_for <= self.budget_bytes:
                break
            if self._remove(key):
                total -= size
                freed += size
        return freed

    @property
    def bytes(self) -> int:
        """What all entries take."""
        return sum(size for _, _, size in self._entries())

    @property
    def keys(self) -> tuple[str, ...]:
        """Every complete entry, least recently used first."""
        return tuple(key for key, _, _ in sorted(self._entries(), key=lambda entry: entry[1]))

    def _build(self, key: str, build: Callable[[Path], None], expected_bytes: int, scratch_bytes: int) -> None:
        self._sweep(key)
        shutil.rmtree(self.root / key, ignore_errors=True)  # an entry that is not whole
        self._make_room(expected_bytes, scratch_bytes)
        staging = Path(tempfile.mkdtemp(prefix=f".staging-{key}-", dir=self.root))
        try:
            with raising_disk_full(self.root):
                build(staging)
                files = {file.relative_to(staging).as_posix(): file.stat().st_size for file in files_of(staging)}
                record = {"key": key, "files": files, "bytes": sum(files.values())}
                (staging / RECORD).write_text(json.dumps(record, sort_keys=True, indent=1) + "\n")
                give_usual_modes(staging)
                publish(staging, self.root / key)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _make_room(self, expected_bytes: int, scratch_bytes: int) -> None:
        """Frees the room that a build takes of budget and disk; frees nothing if the disk cannot have it."""
        needed, free = expected_bytes + scratch_bytes, shutil.disk_usage(self.root).free
        unused = {
            key: size for key, _, size in sorted(self._entries(), key=lambda entry: entry[1]) if self._unused(key)
        }
        if free + sum(unused.values()) < needed:
            raise HemostatError(
                ErrorCode.DISK_FULL,
                f"the checkpoint and its working files take {_gib(needed)}; the store has {_gib(free)} free "
                f"and {_gib(sum(unused.values()))} of checkpoints that are not in use",
                hint="free space there, or set HEMOSTAT_HOME to a larger disk",
            )
        self.evict(room_for=expected_bytes)
        for key in unused:
            if shutil.disk_usage(self.root).free >= needed:
                return
            self._remove(key)

    def _unused(self, key: str) -> bool:
        lock = self._lock(key)
        if lock is not None:
            lock.release()
        return lock is not None

    def _is_whole(self, key: str) -> int | None:
        """The entry's bytes where all its files are there in full size, else None."""
        folder = self.root / key
        try:
            record = json.loads((folder / RECORD).read_bytes())
            sizes = {name: (folder / name).stat().st_size for name in record["files"]}
            return int(record["bytes"]) if record["key"] == key and sizes == record["files"] else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def _entries(self) -> Iterator[tuple[str, int, int]]:
        """(key, time of last use, bytes) of every entry."""
        for folder in self.root.iterdir():
            if KEY.fullmatch(folder.name):
                try:
                    record = folder / RECORD
                    used = record.stat().st_mtime_ns
                    yield folder.name, used, int(json.loads(record.read_bytes())["bytes"])
                except (OSError, ValueError, KeyError, TypeError):
                    size = 0
                    with suppress(OSError):
                        size = sum(file.stat().st_size for file in files_of(folder))
                    yield folder.name, 0, size

    def _remove(self, key: str) -> bool:
        """Removes an entry unless it is in use; says whether it did."""
        lock = self._lock(key)
        if lock is None:
            return False
        try:
            # renamed first: an entry is there in full or not at all, also when this process dies in mid-removal
            doomed = self.root / f".staging-{key}-removed"
            shutil.rmtree(doomed, ignore_errors=True)
            with suppress(FileNotFoundError):
                (self.root / key).rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)
            self._drop_unused(key)
        finally:
            lock.release()
        return True

    def _drop_unused(self, key: str) -> None:
        """Removes the lock file of a key that has no entry; the caller holds it exclusively."""
        if not (self.root / key).exists():
            (self._locks / key).unlink(missing_ok=True)

    def _sweep(self, only: str | None = None) -> None:
        """Removes what builds of dead processes left. With `only`, for a key whose lock the caller holds."""
        for folder in self.root.glob(f".staging-{only or ''}*"):
            key = folder.name.removeprefix(".staging-").partition("-")[0]
            lock = None if only else self._lock(key)
            if only or lock is not None:
                shutil.rmtree(folder, ignore_errors=True)
            if lock is not None:
                self._drop_unused(key)
                lock.release()

    def _lock(self, key: str, *, exclusive: bool = True) -> Lock | None:
        return try_lock(self._locks / key, exclusive=exclusive)


@contextmanager
def raising_disk_full(where: Path) -> Iterator[None]:
    """Turns the operating system's ways of saying that a disk is full into `HemostatError(DISK_FULL)`."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if _number(error) not in DISK_FULL_ERRNOS:
            raise
        raise HemostatError(
            ErrorCode.DISK_FULL,
            f"the disk of {where} is full ({os.strerror(_number(error))})",
            hint="free space there, or lower HEMOSTAT_CHECKPOINT_BUDGET_BYTES; then submit the job again",
        ) from error


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def _number(error: Exception) -> int:
    """The system's number of an error; 0 if it has none."""
    if isinstance(error, OSError):
        return error.errno or 0
    found = _IN_WORDS.search(str(error))
    return int(found[1]) if found else 0
