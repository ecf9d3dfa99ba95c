"""Ctrl-C and SIGTERM: a command ends what it has begun, in order, and its exit status is the one that shells know."""

from __future__ import annotations

import signal


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised where Ctrl-C would be: what cleans up after the one cleans up after the other."""


def raise_on_sigterm() -> None:
    """From now on SIGTERM raises `Terminated` in this process' main thread, which has to call this."""
    signal.signal(signal.SIGTERM, _terminate)


def status_of(interruption: KeyboardInterrupt) -> int:
    """130 for Ctrl-C, 143 for SIGTERM: 128 and the signal's number."""
    return 128 + (signal.SIGTERM if isinstance(interruption, Terminated) else signal.SIGINT)


def _terminate(number: int, frame: object) -> None:
    raise Terminated
