"""The child process: torch, the engine and the handlers live here, one job after the other.

    python -m workers.process.child --fd N --parent PID --handlers module:attribute

It speaks JSON lines over the inherited socket `N`. A reader thread listens while the main thread computes, so that a
cancellation gets through. The process never outlives its parent: the kernel kills it when the parent dies, and so does
the reader when the socket closes.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import faulthandler
import logging
import os
import queue
import resource
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Final, cast

from app.contracts.errors import HemostatError
from app.settings import Settings
from workers.process.context import ChildContext
from workers.process.failures import explain, safe_traceback, texts_of
from workers.process.handler import Handlers, JobCancelled, Room
from workers.process.logs import configure_logging
from workers.process.messages import Cancel, Done, Failed, FromChild, Ready, Run, Stopped, decode_to_child, encode

if TYPE_CHECKING:
    from workers.engine.room import EngineRoom

logger = logging.getLogger("workers.process.child")  # also where it runs as __main__

PR_SET_PDEATHSIG: Final = 1
# The kernel's out-of-memory killer takes this process before the one that holds the job's lease.
OOM_SCORE_ADJUSTMENT: Final = 500


@dataclass
class Assignment:
    """A job that was handed over, and the flag that stops it."""

    run: Run
    stop: threading.Event = field(default_factory=threading.Event)


class Child:
    """Takes assignments from the socket and runs them."""

    def __init__(self, connection: socket.socket, handlers: Handlers, settings: Settings) -> None:
        self._connection = connection
        self._handlers = handlers
        self._settings = settings
        self._room: Room | None = None
        self._waiting: queue.SimpleQueue[Assignment | None] = queue.SimpleQueue()
        self._current: Assignment | None = None
        self._sending = threading.Lock()
        self._warm = threading.Event()

    def serve(self) -> None:
        """Runs jobs until told to shut down."""
        self.send(Ready(pid=os.getpid()))
        threading.Thread(target=self._listen, name="listen", daemon=True).start()
        self._warm_up()
        self._warm.set()
        while (assignment := self._waiting.get()) is not None:
            self._run(assignment)
        if self._room is not None:
            self._room.close()

    def send(self, message: FromChild) -> None:
        """Sends one message; from any thread. Without a parent to hear it there is nothing left to do."""
        line = encode(message)
        with self._sending:
            try:
                self._connection.sendall(line)
            except OSError:
                _die()

    def _listen(self) -> None:
        with self._connection.makefile("rb") as lines:
            for line in lines:
                message = decode_to_child(line)
                if isinstance(message, Run):
                    self._current = Assignment(message)
                    self._waiting.put(self._current)
                elif isinstance(message, Cancel):
                    current = self._current
                    if current and (current.run.job, current.run.attempt) == (message.job, message.attempt):
                        current.stop.set()
                elif self._warm.is_set():
                    self._waiting.put(None)
                else:
                    break  # nothing is open yet, and imports take seconds
        _die()

    def _warm_up(self) -> None:
        """Imports what engines need while no one waits. A failure here meets the first job again, and is reported
        there."""
        try:
            self._room = self._handlers.open_room(self._settings)
            self._handlers.warm_up()
        except Exception as error:
            logger.warning("the engine room does not open: %s", explain(error).error.detail)

    def _run(self, assignment: Assignment) -> None:
        run = assignment.run
        documents = list(texts_of([run.request.get("text"), run.request.get("test_text")]))
        try:
            if run.helping:
                self._help(assignment)
                self.send(Stopped(job=run.job, attempt=run.attempt))
                return
            self.send(self._handle(assignment))
        except JobCancelled:
            self.send(Stopped(job=run.job, attempt=run.attempt))
        except BaseException as error:  # a library's SystemExit too ends the job only
            failure = explain(error, documents)
            if not isinstance(error, HemostatError):  # those were foreseen, and say all that there is to say
                # Not logger.exception: it would print the exception's own message, which may hold text.
                logger.error("%s failed:\n%s", run.job, safe_traceback(error, documents))  # noqa: TRY400
            self.send(Failed(job=run.job, attempt=run.attempt, error=failure.error, spoiled=failure.spoiled))

    def _handle(self, assignment: Assignment) -> Done:
        run = assignment.run
        handler = self._handlers.handler(run.kind)
        request = self._handlers.request(run.kind, run.request)
        context = ChildContext(self._settings, run.job, run.attempt, send=self.send, stop=assignment.stop)
        try:
            context.check_cancelled()
            report = handler(request, context, self._opened(run.share))
            context.write_report(report)
        finally:
            context.flush()
        return Done(
            job=run.job,
            attempt=run.attempt,
            severity=report.severity,
            classes=report.decision.classes,
            answer=self._handlers.kinds[run.kind].call("answer", report),
            artifacts=context.artifacts(),
        )

    def _help(self, assignment: Assignment) -> None:
        """A part of what another worker's attempt has to do. It finds the results in the job's scratch folder."""
        run = assignment.run
        helper = self._handlers.helper(run.kind)
        request = self._handlers.request(run.kind, run.request)
        context = ChildContext(self._settings, run.job, run.attempt, send=self.send, stop=assignment.stop, helping=True)
        try:
            context.check_cancelled()
            helper(request, context, self._opened(run.share))
        finally:
            context.flush()
            shutil.rmtree(context.output, ignore_errors=True)

    def _opened(self, share: float) -> EngineRoom:
        if self._room is None:
            self._room = self._handlers.open_room(self._settings)
        self._room.take_share(share)
        return cast("EngineRoom", self._room)  # the handlers' own kind of room


def harden(parent: int) -> None:
    """Dies with `parent`, is the out-of-memory killer's first choice, leaves no core dump (it would hold documents)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        with contextlib.suppress(OSError):  # not every sandbox has it
            Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE_ADJUSTMENT), encoding="ascii")
    if os.getppid() != parent:
        _die()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()


def _die() -> None:
    """Ends this process and, since it leads a group of its own, whatever an engine has started."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m workers.process.child")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--handlers", required=True)
    options = parser.parse_args(arguments)
    harden(options.parent)
    settings = Settings()
    # Compiled divergences outlive the machine's temporary files: compiling takes longer than many a job.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(settings.home / "inductor"))
    configure_logging("child", settings.log_level)
    handlers: Any = resolve_name(options.handlers)
    Child(socket.socket(fileno=options.fd), handlers, settings).serve()


if __name__ == "__main__":
    main()
