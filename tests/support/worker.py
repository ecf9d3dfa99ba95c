"""A real worker process over a real Redis, for tests, and the owner's side of its jobs."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import psutil

from app.jobs import workers
from app.jobs.ids import new_job_id
from app.jobs.queue import make_docket, submit
from app.jobs.record import JobRecord
from app.jobs.store import JobStore
from app.kinds.registry import requests
from app.settings import Settings
from tests.support.patient import connect_patiently

ROOT = Path(__file__).resolve().parents[2]
T = TypeVar("T")


def environment(settings: Settings) -> dict[str, str]:
    """This process' environment with the settings in it."""
    values = {
        f"HEMOSTAT_{name.upper()}": str(value) for name, value in settings.model_dump().items() if value is not None
    }
    return {**{name: value for name, value in os.environ.items() if not name.startswith("HEMOSTAT_")}, **values}


class WorkerProcess:
    """`python -m workers.main` with the handlers of `tests.support.handlers`, logging to a file."""

    def __init__(
        self,
        settings: Settings,
        log: Path,
        *,
        handlers: str = "tests.support.handlers:HANDLERS",
        preexec_fn: Callable[[], None] | None = None,
    ) -> None:
        self.settings = settings
        self.log = log
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "workers.main", "--handlers", handlers],
                cwd=ROOT,
                env=environment(settings),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=preexec_fn,  # noqa: PLW1509 - the tests that give one start no thread
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_until_up(self) -> None:
        """It may have ended since."""
        wait_for(lambda: "metrics on" in self.text() or self.process.poll() is not None, what="worker up")
        assert "metrics on" in self.text(), self.text()

    def metrics_url(self) -> str:
        self.wait_until_up()
        found = re.search(r"metrics on (\S+)", self.text())
        assert found, self.text()
        return found.group(1)

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.pid).children(recursive=True)

    def kill(self) -> None:
        """kill -9 of the worker alone, not of its child."""
        self.process.kill()
        self.process.wait()

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def stop(self) -> int:
        """Told to go twice: whatever runs is given back at once."""
        if self.process.poll() is None:
            self.terminate()
            self.process.send_signal(signal.SIGINT)  # means the same to it; two of one kind may reach it as one
        return self.process.wait(60)

    def __enter__(self) -> "WorkerProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        finally:
            if self.process.poll() is None:
                self.kill()


class Owner:
    """Submits jobs and looks at them; each call is one event loop of its own, so that tests read from top to bottom."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def submit(
        self,
        text: str = "A plain text of a few words.",
        timeout_s: float | None = None,
        owner: str = "",
        **metadata: str,
    ) -> str:
        return self.submit_request(
            {
                "kind": "compare",
                "reference": {"model": "a"},
                "candidate": {"model": "b"},
                "text": {"source": "inline", "documents": [{"id": "d", "text": text}]},
                "timeout_s": timeout_s,
                "metadata": metadata,
            },
            owner,
        )

    def submit_request(self, body: dict[str, Any], owner: str = "") -> str:
        request = requests().validate_python(body)

        async def act(store: JobStore) -> str:
            job_id = new_job_id()
            outcome = await store.create(job_id, request, owner=owner)
            assert outcome.kind == "created"
            async with make_docket(self.settings) as docket:
                assert not outcome.its_turn or await submit(docket, job_id)
            return job_id

        return self._run(act)

    def record(self, job_id: str) -> JobRecord:
        async def act(store: JobStore) -> JobRecord:
            record = await store.get(job_id)
            assert record is not None
            return record

        return self._run(act)

    def cancel(self, job_id: str) -> None:
        self._run(lambda store: store.cancel(job_id))

    def events(self, job_id: str) -> list[str]:
        async def act(store: JobStore) -> list[str]:
            return [event.data for event in await store.events(job_id, 0, count=5000)]

        return self._run(act)

    def workers(self) -> list[workers.WorkerInfo]:
        return self._run(lambda store: workers.living(store.client))

    def wait(self, job_id: str, *, timeout_s: float = 90) -> JobRecord:
        """Until the job has ended."""
        return self.wait_until(job_id, lambda record: record.ended, timeout_s=timeout_s)

    def wait_until(self, job_id: str, condition: Callable[[JobRecord], bool], *, timeout_s: float = 90) -> JobRecord:
        async def act(store: JobStore) -> JobRecord:
            deadline = time.monotonic() + timeout_s
            while True:
                record = await store.get(job_id)
                if record is not None and condition(record):
                    return record
                assert time.monotonic() < deadline, f"still {record}"
                await asyncio.sleep(0.05)

        return self._run(act)

    def _run(self, act: Callable[[JobStore], Awaitable[T]]) -> T:
        async def run() -> T:
            client = connect_patiently(self.settings)
            try:
                return await act(JobStore(client, self.settings))
            finally:
                await client.aclose()

        return asyncio.run(run())


def wait_for(condition: Callable[[], T], *, what: str, timeout_s: float = 90) -> T:
    """The condition's first true value."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"no {what} within {timeout_s} s"
        time.sleep(0.02)


def halt(pid: int) -> None:
    """SIGSTOP; returns when the process stands still."""
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, what="standstill")


def gone(pid: int) -> bool:
    """Whether a process has ended (a zombie has)."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
