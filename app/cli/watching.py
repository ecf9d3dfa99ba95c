"""A job is submitted, followed to its end, and its result shown."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from app.cli.client import Client
from app.cli.interruption import ignore_sigterm
from app.cli.output import UnsuccessfulError, phases
from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.job import Queue
from app.reports import format as fmt
from app.web.again import kept

Json = dict[str, Any]
_UNFINISHED: Final = frozenset({"queued", "running", "cancelling"})


def follow(client: Client, job_id: str, console: Console) -> Json:
    """Shows progress until the job ends and returns it: what it waits for, its phases, and that the service is away."""
    with phases(console) as display:

        def away(gone: bool) -> None:
            display.say("the service does not answer; trying again" if gone else "the service answers again")

        for name, data in client.watch(job_id, away):
            if name == "progress":
                progress = data["progress"]
                display.update(progress["phase"], progress["done"], progress["total"])
            elif name == "log":
                display.say(data["message"])
            elif name == "state" and data["status"] == "queued":
                _say_turn(client, job_id, display.say)
            elif name == "state" and data["status"] == "running" and data["attempt"] > 1:
                display.say(f"attempt {data['attempt']}: continuing from the windows that are scored")
    return client.job(job_id)


def _say_turn(client: Client, job_id: str, say: Callable[[str], None]) -> None:
    with contextlib.suppress(HemostatError):  # the service is away, which the events report
        turn = Queue.model_validate(client.queue(job_id)).description
        if turn:
            say(f"queued: {turn}")


def run_to_end(client: Client, request: Json, console: Console) -> Json:
    """Submits a job and follows it; Ctrl-C and SIGTERM cancel it before they leave, which another Ctrl-C breaks off.

    Raises `HemostatError` with the job's own code when it does not succeed.
    """
    try:
        job = client.submit(request)
    except KeyboardInterrupt:
        told = (
            f"interrupted while the job was sent: {client.afterwards('hemostat jobs list')} shows whether it was "
            "accepted"
        )
        console.print(told, markup=False, soft_wrap=True)
        raise
    try:
        console.print(f"job {job['id']}", markup=False)
        job = follow(client, job["id"], console)
    except KeyboardInterrupt:
        ignore_sigterm()
        console.print(f"cancelling {job['id']} …")
        try:
            _cancel(client, job["id"], console)
        except KeyboardInterrupt:
            cancel = client.afterwards(f"hemostat jobs cancel {job['id']}")
            told = f"interrupted: {job['id']} may still run; {cancel} cancels it"
            console.print(told, markup=False, soft_wrap=True)
            raise
        raise
    require_success(job)
    began, ended = job.get("started_at"), job.get("finished_at")
    if began is not None and ended is not None:
        # More than its report's phases: the worker's process has started before the first of them.
        console.print(f"job {job['id']} took {fmt.duration(max(0.0, ended - began))} in all", markup=False)
    return job


def _cancel(client: Client, job_id: str, console: Console) -> None:
    """Raises `HemostatError(UNAVAILABLE)` if no service hears it: the job is then still there."""
    try:
        client.cancel(job_id)
    except HemostatError as error:
        if error.code is not ErrorCode.UNAVAILABLE:
            raise
        cancel = client.afterwards(f"hemostat jobs cancel {job_id}")
        hint = f"the next service continues it; then {cancel} cancels it"
        raise HemostatError(error.code, f"job {job_id} is not cancelled: {error.detail}", hint=hint) from error
    try:
        job = _settled(client, job_id)
        console.print(f"{job_id} is {job['status']}")
        if told := kept(job):
            console.print(told, markup=False, soft_wrap=True)
    except HemostatError as error:
        if error.code is not ErrorCode.UNAVAILABLE:
            raise
        console.print(f"{job_id} was asked to cancel; the service no longer answers")


def _settled(client: Client, job_id: str) -> Json:
    """The job once it has ended, or after a few seconds."""
    deadline = time.monotonic() + 10
    while (job := client.job(job_id))["status"] in _UNFINISHED:
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    return job


def error_of(job: Json) -> UnsuccessfulError:
    """The error that a job ended with."""
    error = job["error"]
    return UnsuccessfulError(ErrorCode(error["code"]), error["detail"], hint=error.get("hint", ""))


def require_success(job: Json) -> None:
    """Raises `HemostatError` with the job's own code unless it succeeded."""
    if job["status"] == "succeeded":
        return
    if job.get("error"):
        raise error_of(job)
    if job["status"] in _UNFINISHED:
        hint = f"`hemostat jobs watch {job['id']}` waits for it"
        raise HemostatError(ErrorCode.JOB_NOT_FINISHED, f"job {job['id']} is {job['status']}", hint=hint)
    raise UnsuccessfulError(ErrorCode.JOB_NOT_FINISHED, f"job {job['id']} was {job['status']}", hint="submit it again")


def save_page(html: str, destination: Path) -> Path:
    """Writes the HTML report, whole or not at all. Raises `HemostatError(PATH_FORBIDDEN)` if it cannot."""
    partial = destination.with_name(f".{destination.name}.partial")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(html, encoding="utf-8")
        partial.replace(destination)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise _unwritable(destination, error.strerror or str(error)) from error
    return destination.resolve()


def check_writable(destination: Path) -> None:
    """Raises `HemostatError(PATH_FORBIDDEN)` before anything is measured, where a page could not be written after."""
    folder = destination.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if destination.is_dir():
        raise _unwritable(destination, "it is a folder")
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise _unwritable(destination, f"{folder} cannot be written to")
    if folder == destination.parent:
        try:
            with tempfile.NamedTemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise _unwritable(destination, error.strerror or str(error)) from error


def _unwritable(destination: Path, why: str) -> HemostatError:
    return HemostatError(
        ErrorCode.PATH_FORBIDDEN, f"the page cannot be written to {destination}: {why}", hint="give another path"
    )
