"""What a rule answers: an outcome, its sentence, the numbers it was decided on, and charts of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from app.contracts.report import Mean
from app.reports import format as fmt

Outcome = Literal["confirmed", "refuted", "not identifiable", "not measured"]
Interval = tuple[float, float]


class NoNumberError(ValueError):
    """A report has not the number that a rule needs; the text says which one, and why where that is known."""


@dataclass(frozen=True)
class Figure:
    """A number with its 95 % interval and unit, what it is of, and what it was compared with."""

    what: str
    value: float
    ci: Interval | None
    unit: str
    against: str

    @classmethod
    def of(cls, what: str, mean: Mean, unit: str, against: str) -> Figure:
        """From a mean of a report. Raises `NoNumberError` where it has no value or no interval."""
        if mean.mean is None or mean.ci is None:
            raise NoNumberError(f"{what} has no interval: its values are not finite, or a single cluster leaves none")
        return cls(what, mean.mean, mean.ci, unit, against)

    @property
    def low(self) -> float:
        """The lower limit; the value itself where there is no interval."""
        return self.ci[0] if self.ci else self.value

    @property
    def high(self) -> float:
        """The upper limit; the value itself where there is no interval."""
        return self.ci[1] if self.ci else self.value

    def below(self, other: Figure) -> bool:
        """Whether the whole interval lies under the other's."""
        return self.high < other.low

    def over(self, other: Figure, what: str, unit: str, against: str) -> Figure:
        """This one divided by another, both intervals at their unfavourable ends. Raises `NoNumberError` where the
        other's interval reaches 0."""
        if other.low <= 0:
            raise NoNumberError(f"{other.what}: the interval reaches 0, and nothing can be divided by it")
        ends = sorted(end / limit for end in (self.low, self.high) for limit in (other.low, other.high))
        return Figure(what, self.value / other.value, (ends[0], ends[-1]), unit, against)

    def __str__(self) -> str:
        return str(fmt.estimate(self.value, self.ci))


@dataclass(frozen=True)
class Chart:
    """A chart and what it shows, in a line. The results keep no markup: it is in the chart's picture."""

    name: str
    caption: str
    markup: Annotated[str, Field(exclude=True)] = ""


@dataclass(frozen=True)
class Finding:
    """What became of a claim."""

    outcome: Outcome
    sentence: str
    figures: tuple[Figure, ...] = ()
    charts: tuple[Chart, ...] = ()


def decided(*, confirmed: bool, refuted: bool) -> Outcome:
    """Neither is not identifiable. Raises ValueError for both: a rule that can say both is none."""
    if confirmed and refuted:
        raise ValueError("a claim cannot be confirmed and refuted")
    return "confirmed" if confirmed else "refuted" if refuted else "not identifiable"
