"""How far a job is, in words: what it counts in this phase, and the share of the phase."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from app.web import format as fmt
from app.web.phases import in_words


@dataclass(frozen=True)
class _Unit:
    """What a phase counts, and how many of its steps make one of these."""

    noun: str
    steps: int = 1


_STEP: Final = _Unit("step")
_UNITS: Final = {
    "tokenize": _Unit("document"),
    "sample": _Unit("token"),
    "modify": _Unit("tensor"),
    "reference": _Unit("window"),
    "candidate": _Unit("window"),
    "noise_floor": _Unit("window"),
    "points": _Unit("setting", 100),
    "search": _Unit("trial"),
    "generate": _Unit("answer"),
    "execute": _Unit("program"),
    "divergence": _Unit("window"),
    "shapes": _Unit("position"),
}
# A trajectory's texts end where they end; its tokens tell how far it is.
_OF_KIND: Final = {("trajectory", "generate"): _Unit("token")}
# Their steps are shares of one thing, and mean nothing to people.
_SHARES: Final = frozenset({"fit", "kernel_term"})


def steps_of(phase: str) -> int:
    """How many of a phase's steps make one of what it counts: a setting of a sweep is told in hundredths."""
    return _UNITS.get(phase, _STEP).steps


def percent(progress: Mapping[str, Any]) -> str:
    """`61 %` of the phase, never more than is done; empty where its length is not known, or it is one step."""
    done, total = progress["done"], progress["total"]
    return f"{100 * done // total} %" if total > 1 else ""


def counted(kind: str, progress: Mapping[str, Any]) -> str:
    """`8 of 13 settings, 61 % of this phase`; `34 steps so far` where the length is not known; empty where nothing is
    counted. `kind` is the job's."""
    phase, done, total = progress["phase"], progress["done"], progress["total"]
    if total == 1 or not (done or total):
        return ""
    share = f"{percent(progress)} of this phase"
    if phase in _SHARES:
        return share if total else ""
    unit = _OF_KIND.get((kind, phase)) or _UNITS.get(phase, _STEP)
    if not total:
        return f"{fmt.counted(done // unit.steps, unit.noun)} so far"
    return f"{fmt.count(done // unit.steps)} of {fmt.counted(total // unit.steps, unit.noun)}, {share}"


def told(kind: str, progress: Mapping[str, Any]) -> str:
    """The phase, and how far it is: `measuring the settings: 8 of 13 settings, 61 % of this phase`."""
    far = counted(kind, progress)
    return in_words(progress["phase"]) + (f": {far}" if far else "")


def briefly(progress: Mapping[str, Any]) -> str:
    """The phase and its share, for lists: `measuring the settings 61 %`."""
    return " ".join(filter(None, (in_words(progress["phase"]), percent(progress))))
