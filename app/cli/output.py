"""How the command line speaks: tables and progress for people, JSON for programs, and what an exit status means."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, NoReturn

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from app.commands.places import Words, at_prompt, place_of
from app.contracts.errors import HemostatError
from app.error_guide import GUIDE
from app.reports import format as fmt
from app.verdicts import Outcome
from app.web.phases import in_words
from app.web.progress import steps_of

Json = dict[str, Any]

_NO_WORDS: Final[Words] = {}
_TRAILING: Final = re.compile("[ \t]+$", re.MULTILINE)
_ALSO: Final = re.compile(r"(?<= Also at )/\S*(?=: )")  # a further place that a detail names


class _Trimmed(Console):
    """Where there is no terminal, lines end with what they say: a table is filled up with blanks to its width."""

    def print(self, *objects: Any, **options: Any) -> None:
        """As a console prints."""
        if self.is_terminal:
            super().print(*objects, **options)
            return
        with self.capture() as captured:
            super().print(*objects, **options)
        self.file.write(_TRAILING.sub("", captured.get()))
        self.file.flush()


# People's text and progress go to standard error when JSON goes to standard output.
# A pipe has no width: nothing is folded there. Text of users is never markup, nor emoji codes.
_WIDE = 240
out = _Trimmed(highlight=False, emoji=False, width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else _WIDE)
err = Console(stderr=True, highlight=False, emoji=False)


@contextmanager
def busy(what: str) -> Iterator[None]:
    """Says on standard error what takes a while: a spinner on a terminal, one line elsewhere."""
    if not err.is_terminal:
        err.print(what, markup=False, soft_wrap=True)
        yield
        return
    with err.status(escape(what)):
        yield


class Exit(IntEnum):
    """Exit statuses of every command, beside 130 (Ctrl-C) and 143 (SIGTERM)."""

    OK = 0  # done or measured; the rule holds if there is one
    RULE_FAILS = 1
    REFUSED = 2  # wrong usage, or what the service refuses (4xx)
    INCONCLUSIVE = 3  # measured; whether the rule holds is open
    FAILED = 4  # the job or the service failed


@dataclass(frozen=True)
class Rule:
    """What `--fail-on` asks of a report. A command without it has no rule."""

    fail_on: str
    judge: Callable[[Json], Outcome]

    def outcome(self, report: Json) -> Json:
        """For programs: the rule and its outcome."""
        return {"fail_on": self.fail_on, "outcome": self.judge(report)}


_OF_OUTCOME: Final[dict[Outcome, Exit]] = {
    "pass": Exit.OK,
    "fail": Exit.RULE_FAILS,
    "inconclusive": Exit.INCONCLUSIVE,
}


class UnsuccessfulError(HemostatError):
    """A job that was taken and has no result, whatever the HTTP status of its code."""


def exit_of(ended: HemostatError | Outcome) -> Exit:
    """The exit status of an error, or of a rule's outcome."""
    if not isinstance(ended, HemostatError):
        return _OF_OUTCOME[ended]
    refused = 400 <= ended.status < 500 and not isinstance(ended, UnsuccessfulError)
    return Exit.REFUSED if refused else Exit.FAILED


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")


def fail(error: HemostatError, *, as_json: bool, words: Words = _NO_WORDS) -> NoReturn:
    """Shows what went wrong and what to do, and ends with the status of the error.

    `words`: what sets the fields of a body at this prompt.
    """
    if as_json:
        print_json(
            {"error": {"code": error.code, "detail": error.detail, "hint": error.hint, "pointer": error.pointer}}
        )
    else:
        show_error(error, err, words)
    raise SystemExit(exit_of(error))


def show_error(error: HemostatError, console: Console, words: Words = _NO_WORDS) -> None:
    """Three lines: what went wrong and where, what to do, and the command that explains the code."""
    where = f" [dim]at {escape(place_of(error.pointer, words))}[/]" if error.pointer else ""
    detail = at_prompt(_ALSO.sub(lambda found: place_of(found[0], words), error.detail), words)
    console.print(f"[bold red]error:[/] {escape(detail.removesuffix('.') if where else detail)}{where}", soft_wrap=True)
    hint = at_prompt(error.hint or GUIDE[error.code], words)
    console.print(f"[bold]what to do:[/] {escape(hint)}", soft_wrap=True)
    console.print(f"[dim]explained by: hemostat errors {error.code}[/]", soft_wrap=True)


class Lines:
    """Where there is no terminal to redraw: a line for each phase."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._phase = ""

    def update(self, phase: str, _done: int, total: int) -> None:
        """Says when a phase begins."""
        if phase != self._phase:
            self._phase = phase
            of = f" ({fmt.counted(total, 'window')})" if phase in {"reference", "candidate"} and total else ""
            self._console.print(f"{in_words(phase)}{of} …", markup=False)

    def say(self, message: str) -> None:
        """A line of its own."""
        self._console.print(message, markup=False, soft_wrap=True)


class Phases:
    """A progress bar that is renamed as a job goes from phase to phase."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._phase = "queued"
        self._task = progress.add_task(in_words(self._phase), total=None)

    def update(self, phase: str, done: int, total: int) -> None:
        """Shows `done` of `total` of a phase; total 0 is not known yet."""
        name, steps = in_words(phase), steps_of(phase)
        shown, of = done / steps, total / steps or None
        if phase != self._phase:
            # A task again: one that is there cannot forget its total, which was that of the phase before.
            self._progress.remove_task(self._task)
            self._task = self._progress.add_task(name, total=of)
            self._phase = phase
        self._progress.update(self._task, completed=shown, total=of, description=name)

    def say(self, message: str) -> None:
        """A line above the bar."""
        self._progress.console.print(f"  [dim]{escape(message)}[/]")


@contextmanager
def phases(console: Console) -> Iterator[Phases | Lines]:
    """A progress display for the time of the block: a bar on a terminal, else a line a phase."""
    if not console.is_terminal:
        yield Lines(console)
        return
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as progress:
        yield Phases(progress)
