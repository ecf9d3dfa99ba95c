"""Which of the compared positions are of which token class, and which classes cannot be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.analysis.numerals import counted
from workers.diagnosis.diff.tokens import Tokens
from workers.text.token_classes.catalogue import CLASSES


@dataclass(frozen=True)
class Classes:
    """The positions of each class by its name, in the order of the catalogue; `note` names the classes left out."""

    masks: Mapping[str, NDArray[np.bool_]]
    note: str


def title(name: str) -> str:
    """What people read for a class."""
    return next(one.title for one in CLASSES if one.name == name)


def classes_of(kept: Sequence[Tokens]) -> Classes:
    """The classes of positions that all reports share."""
    found: dict[str, NDArray[np.bool_]] = {}
    absent, unlike = [], []
    for one in CLASSES:
        columns = [tokens.classes[one.name] for tokens in kept]
        mask: NDArray[Any] = np.logical_and.reduce(columns)
        if mask.any():
            found[one.name] = mask
        else:
            absent.append(one.title)
        if other := int(np.count_nonzero(np.logical_or.reduce(columns) & ~mask)):
            unlike.append(f"{one.title} ({counted(other, 'position')})")
    note = []
    if absent:
        note.append(f"Not among the compared positions: {', '.join(absent)}.")
    if unlike:
        note.append(f"Left out where only some reports count a position to the class: {', '.join(unlike)}.")
    return Classes(found, " ".join(note))


def listed(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
