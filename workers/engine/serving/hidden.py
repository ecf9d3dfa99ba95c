"""Hidden states of sampled requests, kept for the shadow process: as private as the text that they come from.

One file a request: the raw last hidden state of each generated token, one row of 2·d bytes (bf16, little endian) after
the other, in order. `NAME.bin` is whole when the request has ended; `NAME.bin.part` belongs to one that runs. A stop
string is found after the token that completes it: there may be a few rows more than tokens in the answer.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import torch

logger = logging.getLogger(__name__)

SWEEP_S: Final = 10.0


@dataclass(eq=False)
class HiddenFile:
    """The file of one request."""

    folder: HiddenFolder
    path: Path
    stream: BinaryIO | None

    @property
    def part(self) -> Path:
        """Its name while it grows."""
        return self.path.with_name(f"{self.path.name}.part")

    def append(self, hidden_D: torch.Tensor) -> None:
        """One more row; nothing where the file was given up."""
        if self.stream is None:
            return
        content = hidden_D.to(torch.bfloat16).contiguous().view(torch.uint8).numpy().tobytes()
        if not self.folder.take(len(content)):
            self.abandon("no room is left for hidden states")
            return
        try:
            self.stream.write(content)
        except OSError as error:
            self.abandon(f"a hidden state cannot be written: {error.strerror}")

    def finish(self) -> None:
        """The request has left the batch: the file gets its name."""
        if self.stream is None:
            return
        try:
            self.stream.close()
            self.part.replace(self.path)
        except OSError as error:
            self.abandon(f"hidden states cannot be kept: {error.strerror}")
        self.stream = None

    def resume(self) -> None:
        """The request is back."""
        with contextlib.suppress(OSError):
            self.path.replace(self.part)
            self.stream = open(self.part, "ab", opener=_private)  # noqa: SIM115 - Path.open takes no opener

    def abandon(self, why: str) -> None:
        """Keeps nothing of this request: half of it is of no use."""
        logger.warning("%s", why)
        stream, self.stream = self.stream, None
        with contextlib.suppress(OSError):
            if stream is not None:
                stream.close()
        self.part.unlink(missing_ok=True)


class HiddenFolder:
    """The files of a deployment, at most `most_bytes` together; those older than `expiry_s` are removed."""

    def __init__(self, folder: Path, *, expiry_s: float, most_bytes: int) -> None:
        self.folder = folder
        self.expiry_s = expiry_s
        self.most_bytes = most_bytes
        self._used = 0
        self._swept = 0.0
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        self.sweep()

    def open(self, request: str) -> HiddenFile | None:
        """A new file; None if it cannot be made. `request` is a checked id, fit to be a file's name."""
        file = HiddenFile(self, self.folder / f"{request}.bin", None)
        try:
            file.stream = open(file.part, "xb", opener=_private)  # noqa: SIM115 - Path.open takes no opener
        except OSError as error:  # two requests of one id among them
            logger.warning("hidden states of a request are not kept: %s", error.strerror)
            return None
        return file

    def take(self, size: int) -> bool:
        """Whether there is room for so many bytes more; counts them."""
        if self._used + size > self.most_bytes:
            return False
        self._used += size
        return True

    def sweep(self, *, now: float | None = None) -> None:
        """Removes what has expired, and counts what is there. Called often, does something every ten seconds."""
        now = time.time() if now is None else now
        if abs(now - self._swept) < SWEEP_S:
            return
        self._swept = now
        used = 0
        for path in self.folder.glob("*.bin*"):
            with contextlib.suppress(FileNotFoundError):
                stat = path.stat()
                if now - stat.st_mtime > self.expiry_s:
                    path.unlink()
                else:
                    used += stat.st_size
        self._used = used


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
