"""Hemostat from Python. `hemostat.compare` runs the command `hemostat compare` and returns its report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike, fspath
from typing import Any

from app.contracts.errors import ErrorCode, HemostatError
from app.kinds.compare.report import CompareReport

__all__ = ["CompareReport", "HemostatError", "compare"]

Model = str | PathLike[str]


def compare(
    reference: Model,
    candidate: Model | None = None,
    *,
    recipe: Sequence[str | Mapping[str, Any]] = (),
    **options: Any,
) -> CompareReport:
    """Compares the next-token distributions of two models. Progress goes to standard error.

    Models, recipe steps and `options` are those of the command: `recipe=["quantize.rtn:bits=4"]`, `text="my.jsonl"`,
    `window=128`, `download=True`. A step may be a mapping. An option that is a mapping is the request's field as JSON.
    Write a long text to a file: a system limits the length of an argument.

    A rule (`fail_on`) is for exit statuses; look at `severity` of the report instead.

    Raises `HemostatError` with the code, detail and hint that the command shows. Ctrl-C cancels the job.
    """
    words = [fspath(reference), *([] if candidate is None else [fspath(candidate)])]
    for step in recipe:
        words += ["--recipe", step if isinstance(step, str) else json.dumps(dict(step))]
    for name, value in options.items():
        words += _words(name, value)
    answer = _answer(["compare", "--json", *words])
    if "error" in answer:
        raise HemostatError(**answer["error"] | {"code": ErrorCode(answer["error"]["code"])})
    return CompareReport.model_validate(answer)


def _words(name: str, value: Any) -> Iterator[str]:
    """The words of the command line that give an option."""
    flag = name.replace("_", "-")
    if isinstance(value, Mapping):
        yield from ("--set", f"{name}={json.dumps(dict(value))}")
    elif isinstance(value, bool):
        yield f"--{flag}" if value else f"--no-{flag}"
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _words(name, one)
    else:
        yield from (f"--{flag}", str(value))


def _answer(words: list[str]) -> dict[str, Any]:
    """What the command prints. It runs in a process of its own, which ends with this one. So it has a main thread and
    signal handlers, and the caller keeps his."""
    command = [sys.executable, "-m", "app.supervised", str(os.getpid()), "app.cli.main", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            output, _ = process.communicate()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            process.communicate()
            raise
    try:
        found: dict[str, Any] = json.loads(output)
    except ValueError as error:
        detail = f"the command ended with status {process.returncode} and without a report"
        raise HemostatError(ErrorCode.UNAVAILABLE, detail, hint="read what it wrote to standard error") from error
    return found
