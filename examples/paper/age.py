"""Whether the code has moved on since the claims were measured: newer versions of steps make other models."""

from __future__ import annotations

from collections.abc import Mapping

from app.cli.output import Exit
from examples.paper.elsewhere import BETWEEN


def moved_on(then: Mapping[str, str], today: Mapping[str, str]) -> Mapping[str, str]:
    """Of each claim whose versions changed: those of both that differ, such as `surgery 4, now surgery 5`."""
    return {
        claim: f"{_without(versions, today[claim])}, now {_without(today[claim], versions)}"
        for claim, versions in then.items()
        if claim in today and versions != today[claim]
    }


def answer(then: Mapping[str, str], today: Mapping[str, str]) -> tuple[Exit, list[str]]:
    """The result of `moved_on` in lines, claims of the same change together, and the exit status: `RULE_FAILS` if the
    code has moved on, `FAILED` if no claim was measured."""
    if not then:
        return Exit.FAILED, ["No claim has been measured."]
    if moved := moved_on(then, today):
        return Exit.RULE_FAILS, _by_change(moved)
    return Exit.OK, ["The models of the claims were made by the versions of today."]


def _by_change(moved: Mapping[str, str]) -> list[str]:
    by_change: dict[str, list[str]] = {}
    for claim, change in moved.items():
        by_change.setdefault(change, []).append(claim)
    return [f"{change}: {', '.join(claims)}" for change, claims in by_change.items()]


def _without(one: str, other: str) -> str:
    return ", ".join(sorted(set(one.split(BETWEEN)) - set(other.split(BETWEEN)))) or "none"
