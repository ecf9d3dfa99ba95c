"""Orders of methods, by paired differences with Holm's correction over the comparisons of a claim."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from app.contracts.diff_report import Measure
from examples.paper.finding import Figure, NoNumberError
from examples.paper.rulings.reports import NATS, Reports
from workers.distributions.significance import LEVEL, holm

Method = tuple[str, str]
"""The job of a method, and its name for people."""


@dataclass(frozen=True)
class Comparison:
    """Two methods of a claim. `nats` is the harsher minus the milder one: above 0 the claim's order holds. `p` is
    two-sided and not corrected."""

    milder: str
    harsher: str
    nats: Figure
    p: float

    @property
    def times(self) -> Figure:
        """Of ln perplexity: the ratio of the two perplexities."""
        low, high = math.exp(self.nats.low), math.exp(self.nats.high)
        what, unit = f"{self.harsher} over {self.milder}", "times the perplexity"
        return Figure(what, math.exp(self.nats.value), (low, high), unit, self.milder)


def compared(reports: Reports, milder: Method, harsher: Method, measure: Measure = "log_perplexity") -> Comparison:
    """The two methods at the same tokens. Raises `NoNumberError` if there is no interval."""
    found = reports.differ(milder[0], harsher[0], measure)
    what = f"{harsher[1]} minus {milder[1]}"
    if found.p is None:
        raise NoNumberError(f"{what}: too little text for a test")
    return Comparison(milder[1], harsher[1], Figure.of(what, found.difference, NATS, milder[1]), found.p)


def ordered(comparisons: Sequence[Comparison]) -> tuple[list[str], list[str]]:
    """Which comparisons hold and which are reversed, each in words, at the 5 % level of all together."""
    holds, reversed_ = [], []
    for one, p in zip(comparisons, holm([one.p for one in comparisons]), strict=True):
        if p < LEVEL and one.nats.value > 0:
            holds.append(f"{one.milder} before {one.harsher}")
        elif p < LEVEL:
            reversed_.append(f"{one.harsher} before {one.milder}")
    return holds, reversed_


def told(holds: Sequence[str], reversed_: Sequence[str], of: int) -> str:
    """How many comparisons hold, and which are reversed."""
    sentence = f"{len(holds)} of {of} comparisons hold"
    if reversed_:
        return f"{sentence}; reversed: {', '.join(reversed_)}."
    return f"{sentence}; none is reversed."
