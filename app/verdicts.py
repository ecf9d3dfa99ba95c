"""The rule behind `--fail-on`: does a verdict pass a level of damage that is not tolerated?"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Literal

from app.contracts.report import SEVERITIES, SeverityVerdict

Outcome = Literal["pass", "fail", "inconclusive"]


class Level(StrEnum):
    """Classes that a rule may name."""

    MILD = "mild"
    MODERATE = "moderate"
    SEVERE = "severe"
    COLLAPSE = "collapse"


def judge(report: Mapping[str, Any], level: Level) -> Outcome:
    """How a report that has one decision compares with the level; see `fails`."""
    return fails(report["decision"], level)


def fails(decision: SeverityVerdict | Mapping[str, Any], level: str) -> Outcome:
    """How a report's `decision` (the model, or its JSON) is to a level: `mild`, `moderate`, `severe` or `collapse`.

    `fail` if every class that the interval touches is the level or worse, `pass` if every one is milder. `inconclusive`
    if the interval straddles the level's threshold or there is none. An inconclusive verdict between two classes may
    thus well pass or fail a level that is on one side of both.

    Raises ValueError for any other level: at `none` every model would fail.
    """
    if level not in SEVERITIES[1:]:
        raise ValueError(f"{level!r} is not a level; there are {', '.join(SEVERITIES[1:])}")
    classes: Sequence[str] = decision.classes if isinstance(decision, SeverityVerdict) else decision["classes"]
    if not classes or not set(classes) <= set(SEVERITIES):
        return "inconclusive"
    reached = {SEVERITIES.index(name) >= SEVERITIES.index(level) for name in classes}
    if reached == {True}:
        return "fail"
    return "pass" if reached == {False} else "inconclusive"
