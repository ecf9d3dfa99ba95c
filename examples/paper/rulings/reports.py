"""The reports that a rule looks at, by the names of their jobs, and the numbers that rules take from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from pydantic import JsonValue

from app.contracts.diff_report import Difference, Measure
from app.contracts.report import Report
from app.kinds.compare.report import CompareReport
from app.kinds.sweep.report import SweepPoint, SweepReport
from examples.paper.finding import Figure, NoNumberError

_Report = TypeVar("_Report")
RATIO: Final = "times the perplexity"
ORIGINAL: Final = "the unmodified model"
NATS: Final = "nats per token"
# The published rule of near-lossless as the sweep's report has it, 1.5 more points of perplexity on a reference of
# 6.157: ln(7.657 / 6.157) is 0.218.
NEAR_LOSSLESS: Final = 0.218
NEAR_RATIO: Final = math.exp(NEAR_LOSSLESS)


def _alone(earlier: str, later: str, measure: Measure) -> Difference:
    raise NoNumberError(f"{earlier} and {later} have no values by token")


@dataclass(frozen=True)
class Reports:
    """Reports by the names of their jobs. `differ(earlier, later, measure)` is the paired difference of two compare
    jobs, the later minus the earlier one."""

    by_job: Mapping[str, Report]
    differ: Callable[[str, str, Measure], Difference] = _alone

    def of(self, job: str, kind: type[_Report]) -> _Report:
        """Raises KeyError where the job was not given, TypeError where its report is of another kind."""
        report = self.by_job[job]
        if not isinstance(report, kind):
            raise TypeError(f"the report of {job} is of kind {report.kind}")
        return report

    def ratio(self, job: str, what: str) -> Figure:
        """Perplexity over the original's, of a comparison."""
        return Figure.of(what, self.of(job, CompareReport).perplexity.ratio, RATIO, ORIGINAL)

    def ratio_at(self, job: str, value: JsonValue, what: str) -> Figure:
        """Perplexity over the original's, of one setting of a sweep."""
        return ratio_of(self._point(job, value), what)

    def kl_at(self, job: str, value: JsonValue, what: str) -> Figure:
        """Mean KL of one setting of a sweep."""
        point = self._point(job, value)
        if point.divergence is None:
            raise NoNumberError(f"{what}: {point.refused or 'it was not measured'}")
        return Figure.of(what, point.divergence.kl, NATS, ORIGINAL)

    def _point(self, job: str, value: JsonValue) -> SweepPoint:
        for point in self.of(job, SweepReport).points:
            if point.value == value:
                return point
        raise NoNumberError(f"{job} has no setting {value}")


def ratio_of(point: SweepPoint, what: str) -> Figure:
    """Perplexity over the original's. Raises `NoNumberError` where there is none."""
    if point.perplexity is None:
        raise NoNumberError(f"{what}: {point.refused or 'it was not measured'}")
    return Figure.of(what, point.perplexity.ratio, RATIO, ORIGINAL)


def near_lossless(figure: Figure) -> bool:
    """Whether the whole interval of a ratio of perplexities is within the published rule."""
    return figure.high < NEAR_RATIO


def beyond(figure: Figure) -> bool:
    """Whether the whole interval is beyond it."""
    return figure.low > NEAR_RATIO


def times(figure: Figure) -> str:
    """`1.34 [1.30, 1.39] times`."""
    return f"{figure} times"
