"""The job context of the child process: folders, and a thin line to the parent."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from app.files import write_atomically
from app.settings import Settings
from workers.process.handler import JobCancelled, Report
from workers.process.messages import MAX_VALUES, Alive, FromChild, Logged, Observed, ProgressMade

REPORT_NAME: Final = "report.json"
PROGRESS_INTERVAL_S: Final = 0.2
OBSERVE_INTERVAL_S: Final = 1.0
ALIVE_INTERVAL_S: Final = 1.0
MAX_LOG_CHARACTERS: Final = 2000
# With less space than this below HEMOSTAT_HOME its Valkey cannot be relied on to write.
ROOM_BYTES: Final = 16 * 1024**2


class ChildContext:
    """`JobContext` over the socket to the parent. Used by the handler's thread alone; `stop` may be set by another.

    Progress is sent at most every 0.2 s, except that the first and the last step of a phase are always sent. Samples of
    metrics are gathered by series and sent every second, and at the end by `flush`. `check_cancelled` says every second
    that the handler goes on: a handler that is in one call for longer than HEMOSTAT_JOB_STALL_S is taken for hung.
    """

    def __init__(
        self,
        settings: Settings,
        job_id: str,
        attempt: int,
        *,
        send: Callable[[FromChild], None],
        stop: threading.Event,
        helping: bool = False,
    ) -> None:
        self.settings = settings
        self.job_id = job_id
        self.attempt = attempt
        self.stop = stop
        self._send = send
        self._phase: str | None = None
        self._progress_at = 0.0
        self._alive_at = 0.0
        self._samples: dict[tuple[str, tuple[tuple[str, str], ...]], list[float]] = {}
        self._waiting = 0
        self._observed_at = time.monotonic()
        self.scratch = scratch_folder(settings, job_id)
        # Who helps an attempt hands nothing in, and leaves the attempt's folder alone.
        self.output = self.scratch / f"helper-{os.getpid()}" if helping else output_folder(settings, job_id, attempt)
        # An attempt's folder is its own; what is there already is of no use to anybody.
        shutil.rmtree(self.output, ignore_errors=True)
        self.scratch.mkdir(parents=True, exist_ok=True)
        self.output.mkdir(parents=True)

    def progress(self, phase: str, done: int, total: int) -> None:
        """See `JobContext`."""
        now = time.monotonic()
        if phase == self._phase and done < total and now - self._progress_at < PROGRESS_INTERVAL_S:
            return
        self._phase, self._progress_at = phase, now
        self._send(ProgressMade(job=self.job_id, attempt=self.attempt, phase=phase, done=done, total=total))

    def log(self, message: str) -> None:
        """See `JobContext`."""
        self._send(Logged(job=self.job_id, attempt=self.attempt, message=message[:MAX_LOG_CHARACTERS]))

    def check_cancelled(self) -> None:
        """See `JobContext`."""
        if self.stop.is_set():
            raise JobCancelled
        now = time.monotonic()
        if now - self._alive_at >= ALIVE_INTERVAL_S:
            self._alive_at = now
            self._send(Alive())

    def observe(self, name: str, value: float, **labels: str) -> None:
        """See `JobContext`."""
        self.observe_many(name, (value,), **labels)

    def observe_many(self, name: str, values: Iterable[float], **labels: str) -> None:
        """See `JobContext`."""
        series = self._samples.setdefault((name, tuple(sorted(labels.items()))), [])
        before = len(series)
        series.extend(float(value) for value in values)
        self._waiting += len(series) - before
        if self._waiting >= MAX_VALUES or time.monotonic() - self._observed_at >= OBSERVE_INTERVAL_S:
            self.flush()

    def flush(self) -> None:
        """Sends the samples that wait."""
        for (name, labels), values in self._samples.items():
            for start in range(0, len(values), MAX_VALUES):
                part = tuple(values[start : start + MAX_VALUES])
                self._send(Observed(name=name, labels=dict(labels), values=part))
        self._samples.clear()
        self._waiting = 0
        self._observed_at = time.monotonic()

    def write_report(self, report: Report) -> None:
        """Puts the report into the attempt's folder: whole, on disk, or not at all."""
        write_atomically(self.output / REPORT_NAME, report.model_dump_json(indent=1).encode())

    def artifacts(self) -> tuple[str, ...]:
        """Names of the files that the handler left beside the report. Hidden and temporary ones are not artifacts."""
        return tuple(
            sorted(
                entry.name
                for entry in self.output.iterdir()
                if entry.is_file() and not entry.name.startswith(".") and entry.name != REPORT_NAME
            )
        )


def scratch_folder(settings: Settings, job_id: str) -> Path:
    """What a later attempt resumes from."""
    return settings.job_dir(job_id) / "partial"


def output_folder(settings: Settings, job_id: str, attempt: int) -> Path:
    """Report and artifacts of one attempt."""
    return settings.job_dir(job_id) / f"attempt-{attempt}"


def is_full(home: Path) -> bool:
    """Whether the disk of the home folder has hardly any room."""
    try:
        return shutil.disk_usage(home).free < ROOM_BYTES
    except OSError:
        return False


def clean_job(settings: Settings, job_id: str, *, keep: int | None) -> None:
    """Removes the scratch folder and every attempt of an ended job but `keep`, and the folder when nothing is left."""
    folder = settings.job_dir(job_id)
    kept = None if keep is None else output_folder(settings, job_id, keep)
    for entry in (scratch_folder(settings, job_id), *folder.glob("attempt-*")):
        if entry != kept:
            shutil.rmtree(entry, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.rmdir()
