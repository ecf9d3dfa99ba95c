"""The cheapest path: which setting of the two knobs loses least at each size.

A setting is on the path where no other one takes as few bytes and loses as little. The largest is first.

What saves next to no bytes is no step: of settings that lie within a thousandth of each other the one that loses least
is on the path.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

# Of the bytes of a setting: a smaller one that saves less saves next to nothing.
_LEAST_SAVED: Final = 1e-3


@dataclass(frozen=True)
class Setting:
    """A measured setting: places of both knobs (0: left out), size, loss, and whether the steps are exchanged."""

    first: int
    second: int
    bytes: int
    loss: float
    reversed: bool = False


def cheapest(settings: Sequence[Setting]) -> list[Setting]:
    """The path from the largest to the smallest; a loss that is not finite is on no path.

    Of settings alike in bytes and loss the plainest one represents all.
    """
    usable = [setting for setting in settings if math.isfinite(setting.loss)]
    ordered = sorted(usable, key=lambda one: (one.bytes, one.loss, plainness(one.first, one.second, one.reversed)))
    path: list[Setting] = []
    for setting in ordered:
        if not path or setting.loss < path[-1].loss:
            path.append(setting)
    return _worth_a_step(path[::-1])


def plainness(first: int, second: int, is_reversed: bool) -> tuple[int, bool, int, int]:
    """Least for the plainest of settings that come to the same: the fewest knobs turned, in the order as given, and
    turned least."""
    return (bool(first) + bool(second), is_reversed, first + second, first)


def saves(smaller: int, larger: int) -> bool:
    """Whether one size in bytes is smaller than another by what counts."""
    return smaller < larger and smaller <= (1 - _LEAST_SAVED) * larger


def _worth_a_step(path: Sequence[Setting]) -> list[Setting]:
    """From the largest on, those that save enough against the last one that is kept."""
    kept: list[Setting] = []
    for setting in path:
        if not kept or saves(setting.bytes, kept[-1].bytes):
            kept.append(setting)
    return kept
