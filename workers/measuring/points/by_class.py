"""Sums by token class of many points, which are told only where all points have them, of the same tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from workers.analysis.numerals import counted
from workers.measuring.points.class_sums import ClassSums
from workers.measuring.points.record import PointRecord

# Settings that a sentence names.
_MOST = 3


@dataclass(frozen=True)
class ByClass:
    """Sums of each point by the name of the class, in the points' order. Without any where there is a `note`, which
    says why."""

    sums: Sequence[Mapping[str, ClassSums]] = ()
    note: str = ""


def by_class(settings: Sequence[str], records: Sequence[PointRecord], *, job: str) -> ByClass:
    """Of whole points and what their settings are called in a sentence; `job` is what measured them, such as `sweep`.

    There are none where a point lacks its sums by class, or counts other tokens to a class than the others do: both are
    of points that another version measured.
    """
    sums = [record.class_sums for record in records]
    known = [one for one in sums if one is not None]
    if len(known) < len(sums):
        lacking = [name for name, one in zip(settings, sums, strict=True) if one is None]
        names = ", ".join(lacking[:_MOST]) + (", …" if len(lacking) > _MOST else "")
        return ByClass(
            note=f"Token classes are not told: {len(lacking)} of {counted(len(sums), 'setting')} ({names}), which an "
            f"earlier version measured, {'has' if len(lacking) == 1 else 'have'} no sums by class. "
            f"Run the {job} again to have them."
        )
    if any(_tokens(one) != _tokens(known[0]) for one in known):
        return ByClass(
            note="Token classes are not told: settings that different versions measured count different tokens to a "
            f"class. Run the {job} again to have them."
        )
    return ByClass(known)


def _tokens(sums: Mapping[str, ClassSums]) -> dict[str, bytes]:
    return {name: one.tokens for name, one in sums.items()}
