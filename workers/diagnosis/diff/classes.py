"""Which of the compared positions are of which token class, and what cannot be given by class.

The columns are those that the compare jobs wrote. A class is compared where every file has its column: of other
positions no one knows whether they are of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from workers.analysis.numerals import counted
from workers.diagnosis.diff.tokens import Tokens
from workers.text.token_classes.catalogue import CLASSES

_TITLES: Final = {one.name: one.title for one in CLASSES}


@dataclass(frozen=True)
class Classes:
    """The positions of each class by its name, in the order of the catalogue; `note` says what is lacking, and why."""

    masks: Mapping[str, NDArray[np.bool_]]
    note: str


def title(name: str) -> str:
    """What people read for a class; one that this version does not know has its column's name."""
    return _TITLES.get(name, name.replace("_", " "))


def classes_of(letters: Sequence[str], kept: Sequence[Tokens]) -> Classes:
    """The classes of positions that all reports share."""
    without = [letter for letter, tokens in zip(letters, kept, strict=True) if not tokens.classes]
    if without:
        return Classes(
            {},
            f"Differences by token class are not told: the values by token of {listed(without)} have no class columns, "
            "as those of earlier versions. Measure again to have them.",
        )
    found: dict[str, NDArray[np.bool_]] = {}
    lacking, absent, unlike = [], [], []
    for name in sorted({name for tokens in kept for name in tokens.classes}, key=_place):
        lack = [letter for letter, tokens in zip(letters, kept, strict=True) if name not in tokens.classes]
        if lack:
            lacking.append(f"{title(name)} (no column in {listed(lack)})")
            continue
        columns = [tokens.classes[name] for tokens in kept]
        mask: NDArray[Any] = np.logical_and.reduce(columns)
        if mask.any():
            found[name] = mask
        else:
            absent.append(title(name))
        if other := int(np.count_nonzero(np.logical_or.reduce(columns) & ~mask)):
            unlike.append(f"{title(name)} ({counted(other, 'position')})")
    note = []
    if lacking:
        note.append(f"Not told, for not every report shows them: {', '.join(lacking)}.")
    if absent:
        note.append(f"Not among the compared positions: {', '.join(absent)}.")
    if unlike:
        note.append(f"Left out where only some reports count a position to the class: {', '.join(unlike)}.")
    return Classes(found, " ".join(note))


def _place(name: str) -> tuple[int, str]:
    known = list(_TITLES)
    return (known.index(name) if name in known else len(known), name)


def listed(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
