"""Processes of the service, started, watched, started again, and ended for certain.

Each runs in a session of its own, so that a terminal's Ctrl-C reaches the supervisor alone, which then ends them in
order. Each gets SIGTERM when the thread that started it ends.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from app.address import local_url
from app.settings import Settings

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 30.0
# A process that ran so long before it ended has earned a prompt start.
STEADY_S: Final = 60.0
# Interruptions of an ending after which nothing is waited for any more.
HURRY: Final = 2
MAX_LOG_BYTES: Final = 16 * 1024 * 1024
# Questions without an answer after which a program is taken for hung.
QUESTIONS: Final = 6
# What a process may need beyond the time that it gives its work.
MARGIN_S: Final = 15.0
TEND_S: Final = 0.5
# Our own API is on this machine; a proxy of the environment would be asked for it.
DIRECT: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))

Say = Callable[[str], None]


def environment_of(settings: Settings) -> dict[str, str]:
    """This process' environment with exactly these settings in it, for a process that reads `Settings()`."""
    prefix = Settings.model_config.get("env_prefix", "")
    names = {name: f"{prefix}{name}".upper() for name in Settings.model_fields}
    environment = {name: value for name, value in os.environ.items() if name.upper() not in names.values()}
    for name, variable in names.items():
        value = getattr(settings, name)
        if value is not None:
            environment[variable] = str(value)
    return environment


def status_of(url: str, timeout_s: float = 5.0) -> int:
    """HTTP status of the answer; 0 if there is none."""
    try:
        with DIRECT.open(url, timeout=timeout_s) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except (OSError, ValueError, http.client.HTTPException):
        return 0


class Watchdog:
    """Whether a program answers at its URL, whatever it says. Questions are counted, not time: a watchdog that was
    frozen itself blames no one. Until the first answer it waits `start_s` longer."""

    def __init__(self, url: str, silence_s: float, start_s: float) -> None:
        self.silence_s = silence_s
        self._url, self._start_s = url, start_s
        self._pause_s = silence_s / QUESTIONS
        self.begin()

    def begin(self) -> None:
        """The program has just been started."""
        self._missed = -int(self._start_s / self._pause_s)
        self._due_at = 0.0

    def silent(self) -> bool:
        """Asks, if it is time to, which takes as long as an answer does. True: `QUESTIONS` in a row had none."""
        now = time.monotonic()
        if now >= self._due_at:
            self._due_at = now + self._pause_s
            self._missed = 0 if status_of(self._url, min(self._pause_s, 5.0)) else self._missed + 1
        return self._missed >= QUESTIONS


@dataclass
class Program:
    """One process: the module that it runs with its arguments, and where its output goes (None: where this one's)."""

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    log: Path | None
    watchdog: Watchdog | None = None
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    failures: int = 0
    due_at: float = field(default=0.0)
    ended_with: str = ""
    leave_by: float | None = None

    @property
    def running(self) -> bool:
        """Whether the process runs."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Starts it. The log is appended to; one that has grown too long is put aside first."""
        with contextlib.nullcontext() if self.log is None else _opened(self.log) as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app.supervised", str(os.getpid()), *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(self.environment),
                start_new_session=True,
            )
        self.started_at = time.monotonic()
        if self.watchdog is not None:
            self.watchdog.begin()

    def last_lines(self, count: int = 5) -> str:
        """The end of the log."""
        with contextlib.suppress(OSError):
            if self.log is not None:
                return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:])
        return ""

    @property
    def pid(self) -> int:
        """Its process id, 0 if it does not run."""
        return self.process.pid if self.process is not None and self.running else 0

    @property
    def troubled(self) -> bool:
        """Whether it ended of itself and has not run steadily since."""
        return self.failures > 0 and not (self.running and time.monotonic() - self.started_at >= STEADY_S)

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal, if there is a process to receive it."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    def kill(self) -> None:
        """Ends it at once."""
        self.signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()


class Supervisor:
    """Keeps programs running until it is asked to stop."""

    def __init__(self, programs: Sequence[Program], say: Say) -> None:
        self.programs = list(programs)
        self.leaving: list[Program] = []
        self._say = say

    def start(self) -> None:
        """Starts every program."""
        for program in self.programs:
            program.start()

    def add(self, program: Program) -> None:
        """Starts one more program."""
        self.programs.append(program)
        program.start()

    def retire(self, program: Program, timeout_s: float) -> None:
        """Ends a program for good, without waiting: SIGTERM now, and `tend` kills it when time is up."""
        self.programs.remove(program)
        if program.running:
            program.signal(signal.SIGTERM)
            program.leave_by = time.monotonic() + timeout_s
            self.leaving.append(program)

    def stop(
        self, programs: Sequence[Program], timeout_s: float, interruptions: Interruptions, *, before: int = 0
    ) -> None:
        """Ends these programs at the same time: SIGTERM, SIGINT at an interruption, SIGKILL at the second or when time
        is up. `before`: interruptions that began the ending and do not hurry it."""
        for program in tuple(programs):
            self.retire(program, timeout_s)
        told = before
        while self.leaving:
            if interruptions.count > told:
                told = interruptions.count
                for program in self.leaving:
                    program.signal(signal.SIGINT)  # two SIGTERM at one time would be one
                    if told - before >= HURRY:
                        program.leave_by = 0.0
            self._tend_leaving()
            time.sleep(0.05)

    def _tend_leaving(self) -> None:
        for program in tuple(self.leaving):
            if not program.running:
                self.leaving.remove(program)
            elif program.leave_by is not None and time.monotonic() >= program.leave_by:
                self._say(f"the {program.name} does not end; it is killed")
                program.kill()
                self.leaving.remove(program)

    def kill_hung(self) -> None:
        """Kills what has given no answer for too long."""
        for program in self.programs:
            if program.running and program.watchdog is not None and program.watchdog.silent():
                self._say(f"the {program.name} has not answered for {program.watchdog.silence_s:g} s; it is killed")
                program.kill()

    def tend(self) -> None:
        """Starts again what has ended, after a pause that grows while it keeps ending, and what hangs."""
        self._tend_leaving()
        self.kill_hung()
        now = time.monotonic()
        for program in self.programs:
            if program.log is not None:
                rotate(program.log)
            if program.running:
                continue
            if program.process is not None:
                status = program.process.returncode
                program.process = None
                if now - program.started_at >= STEADY_S:
                    program.failures = 0
                pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**program.failures)
                program.failures += 1
                program.due_at = now + pause
                program.ended_with = _told(status)
                self._say(f"the {program.name} ended with {_told(status)}; it is started again in {pause:g} s")
                if program.log is not None:
                    self._say(f"  its log: {program.log}")
            elif now >= program.due_at:
                program.start()
                self._say(f"the {program.name} is started again")

    def kill(self) -> None:
        """Ends whatever still runs."""
        for program in (*self.programs, *self.leaving):
            if program.running:
                program.kill()


def _told(status: int) -> str:
    if status < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-status).name
    return f"status {status}"


def _opened(path: Path) -> BinaryIO:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path.open("ab")


def rotate(log: Path) -> None:
    """Puts a log aside that has grown too long, also while a process writes: it appends, so that it goes on at the
    beginning of the emptied file. What is written between copy and emptying is lost."""
    with contextlib.suppress(OSError):  # a disk that is full keeps the log
        if log.stat().st_size > MAX_LOG_BYTES:
            shutil.copyfile(log, log.with_suffix(".log.1"))
            os.truncate(log, 0)


def api_program(settings: Settings, log: Path | None) -> Program:
    """The API, watched."""
    url = f"{local_url(settings.host, settings.port)}/livez"
    watchdog = Watchdog(url, settings.api_silence_s, settings.start_s)
    return Program("API", ("app.main",), environment_of(settings), log, watchdog)


class Interruptions:
    """Counts SIGINT and SIGTERM instead of dying of them, while the block runs. A no-op off the main thread."""

    def __init__(self) -> None:
        self.count = 0
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Interruptions:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal gave
        self._before.clear()

    def _note(self, number: int, frame: object) -> None:
        self.count += 1
