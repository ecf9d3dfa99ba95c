"""Paired differences between compare jobs: at the same tokens, so that what makes a text hard cancels."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from app.contracts.diff_report import Difference, Measure
from app.kinds.compare.report import CompareReport
from examples.paper.finding import NoNumberError
from examples.paper.measure import Measured
from workers.diagnosis.diff.answer import Side, compare_reports
from workers.diagnosis.diff.tokens import read

Differ = Callable[[str, str, Measure], Difference]


def differ_of(measured: Mapping[str, Measured]) -> Differ:
    """`differ(earlier, later, measure)`: the later job minus the earlier one. Raises `NoNumberError` if a job has no
    values by token, and `HemostatError` if the two are not comparable."""

    def differ(earlier: str, later: str, measure: Measure) -> Difference:
        (pair,) = compare_reports([_side(measured[earlier]), _side(measured[later])], by=measure).pairs
        return next(one for one in pair.differences if one.measure == measure)

    return differ


def _side(found: Measured) -> Side:
    if not isinstance(found.report, CompareReport) or found.tokens is None:
        raise NoNumberError(f"{found.name} has no values by token")
    return Side(found.name, found.report, read(found.tokens, name=found.name))
