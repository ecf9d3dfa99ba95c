"""Ctrl-C and SIGTERM: a command ends what it has begun, in order, and its exit status is the one that shells know."""

from __future__ import annotations

import signal


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised where Ctrl-C would be: what cleans up after the one cleans up after the other."""


def raise_on_sigterm() -> None:
    """From now on the first SIGTERM raises `Terminated` in this process' main thread, which has to call this; those
    after it do not break off what it has begun."""
    signal.signal(signal.SIGTERM, _terminate)


def ignore_sigterm() -> None:
    """From now on SIGTERM does nothing: this process, whose main thread has to call this, is ending already."""
    signal.signal(signal.SIGTERM, _ignore)  # a handler, not SIG_IGN, which children would inherit


def status_of(interruption: KeyboardInterrupt) -> int:
    """130 for Ctrl-C, 143 for SIGTERM: 128 and the signal's number."""
    return 128 + (signal.SIGTERM if isinstance(interruption, Terminated) else signal.SIGINT)


def _terminate(number: int, frame: object) -> None:
    ignore_sigterm()
    raise Terminated


def _ignore(number: int, frame: object) -> None:
    pass
