"""The rules of `--fail-on` for tasks: which report ends a command with status 1."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from app.verdicts import Outcome


class FailOn(StrEnum):
    """What ends with status 1."""

    WORSE = "worse"
    NOT_EQUIVALENT = "not-equivalent"


def all_results(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Tasks of a report, those of the harness last."""
    return [*report["tasks"], *report["harness_tasks"]]


def judge(found: dict[str, Any], rule: FailOn) -> Outcome:
    """Whether a report holds the rule. A task at chance decides nothing: it fails no rule, and equivalence is not shown
    on it. One that is worse, yet within the margin, is equivalent. One that could not be scored leaves undecided what
    the others do not fail."""
    results, unscored = all_results(found), bool(found.get("unscored"))
    outcomes = {result["outcome"] for result in results}
    if rule is FailOn.WORSE:
        if "worse" in outcomes:
            return "fail"
        return "inconclusive" if unscored or outcomes == {"at_chance"} else "pass"
    if any(result["outcome"] == "worse" and not result["equivalence"]["equivalent"] for result in results):
        return "fail"
    within = all(result["equivalence"]["equivalent"] and result["outcome"] != "at_chance" for result in results)
    return "pass" if within and not unscored else "inconclusive"
