"""Runs `pip install` and says how far it is: a line that counts on a terminal, a line now and then in a log.

`python deploy/install.py "what is said" ARGUMENTS OF PIP …`; ends with pip's status, and with its own words where that
is not 0.
"""

import re
import shutil
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import TextIO

_PAUSE_S = 10.0  # between two lines of a log
_KEPT_LINES = 40
_NAME = re.compile(r"(?:Collecting|Requirement already satisfied:|Ignoring) ([A-Za-z0-9][A-Za-z0-9._-]*)")
_LOAD = re.compile(r" *Downloading \S+ \(([0-9.]+ [MG]B)\)")


def pinned(arguments: list[str]) -> int:
    """How many packages the requirement files among pip's arguments pin; 0 where others may come with them."""
    if "--no-deps" not in arguments:
        return 0
    files = [arguments[at + 1] for at, one in enumerate(arguments[:-1]) if one == "-r"]
    lines = [line for file in files for line in Path(file).read_text(encoding="utf-8").splitlines()]
    return sum(1 for line in lines if re.match(r"[A-Za-z0-9]", line))


class Progress:
    """Tells `what` and a count. `total` 0: how many there will be is not known."""

    def __init__(self, what: str, total: int, stream: TextIO) -> None:
        self._what, self._total, self._stream = what, total, stream
        self._terminal = stream.isatty()
        self._count, self._told, self._width, self._name = 0, time.monotonic(), 0, ""
        if not self._terminal:
            self._stream.write(f"{what} …\n")
            self._stream.flush()

    def line(self, line: str) -> None:
        """Takes in a line of pip's."""
        if found := _NAME.match(line):
            self._count += 1
            self._name = found[1]
            self._say(self._so_far(self._name))
        elif found := _LOAD.match(line):
            self._say(self._so_far(f"{self._name}, {found[1]}"))
        elif line.startswith("Installing collected packages"):
            self._say(f"{self._what}: installing them, which takes a minute or two", at_once=True)

    def end(self) -> None:
        """Leaves no half line behind."""
        if self._terminal:
            self._show(self._what)
            self._stream.write("\n")
            self._stream.flush()

    def _so_far(self, now: str) -> str:
        of = f" of {self._total}" if self._total >= self._count else ""
        return f"{self._what}: {self._count}{of} ({now})"

    def _say(self, text: str, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if self._terminal:
            self._show(text)
        elif at_once or now - self._told >= _PAUSE_S:
            self._told = now
            self._stream.write(f"  {text}\n")
            self._stream.flush()

    def _show(self, text: str) -> None:
        text = text[: shutil.get_terminal_size().columns - 1]  # a line that wraps cannot be written over
        self._stream.write(f"\r{text:<{self._width}}")
        self._stream.flush()
        self._width = len(text)


def main(what: str, arguments: list[str]) -> int:
    """pip's status."""
    progress = Progress(what, pinned(arguments), sys.stdout)
    command = [sys.executable, "-m", "pip", "install", "--progress-bar", "off", *arguments]
    last: deque[str] = deque(maxlen=_KEPT_LINES)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None  # noqa: S101 - asked for above
        for line in process.stdout:
            last.append(line)
            progress.line(line)
    progress.end()
    if process.returncode:
        sys.stderr.write("".join(last))
    return process.returncode


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1], sys.argv[2:]))
    except KeyboardInterrupt:  # pip had it too, and has said so
        sys.exit(130)
