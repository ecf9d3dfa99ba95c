"""How far a job is, in words: what it counts in this phase, and the share of the phase."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.reports import format as fmt
from app.web.phases import in_words, phase_of


def steps_of(phase: str) -> int:
    """How many of a phase's steps make one of what it counts: a setting of a sweep is reported in hundredths."""
    return phase_of(phase).steps


def percent(progress: Mapping[str, Any]) -> str:
    """`61 %` of the phase, never more than is done; empty if its length is not known, or it is one step."""
    done, total = progress["done"], progress["total"]
    return f"{100 * done // total} %" if total > 1 else ""


def counted(kind: str, progress: Mapping[str, Any]) -> str:
    """`8 of 13 settings, 61 % of this phase`; `34 steps so far` where the length is not known; empty if nothing is
    counted. `kind` is the job's."""
    phase, done, total = progress["phase"], progress["done"], progress["total"]
    if total == 1 or not (done or total):
        return ""
    share, of = f"{percent(progress)} of this phase", phase_of(phase, kind)
    if of.share:
        return share if total else ""
    if not total:
        return f"{fmt.counted(done // of.steps, of.unit)} so far"
    return f"{fmt.count(done // of.steps)} of {fmt.counted(total // of.steps, of.unit)}, {share}"


def told(kind: str, progress: Mapping[str, Any]) -> str:
    """The phase, and how far it is: `measuring the settings: 8 of 13 settings, 61 % of this phase`."""
    far = counted(kind, progress)
    return in_words(progress["phase"]) + (f": {far}" if far else "")


def briefly(progress: Mapping[str, Any]) -> str:
    """The phase and its share, for lists: `measuring the settings 61 %`."""
    return " ".join(filter(None, (in_words(progress["phase"]), percent(progress))))
