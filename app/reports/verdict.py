"""The first screen: which class, how sure, and where the excess is among the thresholds."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from markupsafe import Markup

from app.contracts.report import SEVERITIES, Report, Severity
from app.reports import format as fmt
from app.reports.blocks import Cell, Column, Pip, Table
from app.reports.charts.marks import threshold_chart
from app.reports.untrusted import visible

# So many tokens, and so many times the text that was scored, no one will score.
_BEYOND_REACH: Final = 1_000_000
_BEYOND_REACH_TIMES: Final = 100


@dataclass(frozen=True)
class Verdict:
    """Texts and chart of the verdict."""

    severity: Severity
    heading: str
    classes: tuple[Severity, ...]
    conclusive: bool
    sentence: str
    pips: tuple[Pip, ...]
    rank: str
    margin: str
    to_decide: str
    chart: Markup | None
    rule: str
    detectable: str
    nonfinite: str
    cautions: str
    thresholds: Table


def verdict(report: Report) -> Verdict:
    """The verdict of a report."""
    decision = report.decision
    return Verdict(
        severity=report.severity,
        heading=heading(report),
        classes=named(report),
        conclusive=decision.conclusive,
        sentence=visible(report.verdict),
        pips=_pips(report),
        rank=rank(report),
        margin=margin(report),
        to_decide=to_decide(report),
        chart=_chart(report),
        rule=visible(decision.rule),
        detectable=detectable(report),
        nonfinite=nonfinite(report),
        cautions=_cautions(report),
        thresholds=_thresholds(report),
    )


def _chart(report: Report) -> Markup | None:
    decision = report.decision
    if decision.excess_kl.mean is None:
        return None
    return threshold_chart(
        decision.excess_kl.mean,
        decision.excess_kl.ci,
        decision.thresholds,
        floor=report.noise_floor.kl.mean,
        detectable=decision.smallest_detectable_excess,
        classes=named(report),
    )


def heading(report: Report) -> str:
    """`severe`; of two classes `mild or moderate`, of more `none to severe`."""
    classes = named(report)
    return " or ".join(classes) if len(classes) < 3 else f"{classes[0]} to {classes[-1]}"


def edges(report: Report) -> tuple[float, float, float, float]:
    """The thresholds, rising: where mild, moderate, severe and collapse begin."""
    thresholds = report.decision.thresholds
    return (thresholds.mild, thresholds.moderate, thresholds.severe, thresholds.collapse)


def ranges(report: Report) -> tuple[str, ...]:
    """The span of each class, mildest first, in nats."""
    limits = edges(report)
    return (
        f"under {fmt.short(limits[0])}",
        *(f"{fmt.short(low)} to {fmt.short(high)}" for low, high in pairwise(limits)),
        f"from {fmt.short(limits[-1])}",
    )


def to_decide(report: Report) -> str:
    """How much text would settle an inconclusive verdict; empty if it is conclusive or nothing is known."""
    tokens, about = report.decision.tokens_to_decide, report.decision.about_tokens_to_decide
    if report.decision.conclusive or tokens is None or about is None:
        return ""
    factor = tokens / max(1, report.tokens)
    times = fmt.number(factor, 2) if factor < 100 else fmt.count(int(round(factor, 2 - len(str(int(factor))))))
    if tokens >= _BEYOND_REACH and factor >= _BEYOND_REACH_TIMES:
        return (
            f"It is so close to a limit that only about {fmt.count(about)} scored tokens would decide, {times} times "
            "this text."
        )
    return f"About {fmt.count(about)} scored tokens would decide, {times} times this text."


def nonfinite(report: Report) -> str:
    """What non-finite values mean, where there were any."""
    if not report.nonfinite_positions:
        return ""
    positions = "position" if report.nonfinite_positions == 1 else "positions"
    return (
        f"{fmt.count(report.nonfinite_positions)} {positions} gave NaN or infinite values. No mean of this report "
        "includes them. They alone make the verdict collapse."
    )


def named(report: Report) -> tuple[Severity, ...]:
    """The classes that the verdict names, mildest first."""
    if report.decision.conclusive or not report.decision.classes:
        return (report.severity,)
    return report.decision.classes


def _pips(report: Report) -> tuple[Pip, ...]:
    reached = [SEVERITIES.index(name) for name in named(report)]
    return tuple(
        Pip(name, "on" if index <= reached[0] else "may" if index <= reached[-1] else "off")
        for index, name in enumerate(SEVERITIES)
    )


def rank(report: Report) -> str:
    """Which of the five classes: `class 4 of 5`, `class 2 or 3 of 5`."""
    reached = [str(SEVERITIES.index(name) + 1) for name in named(report)]
    steps = " or ".join(reached) if len(reached) < 3 else f"{reached[0]} to {reached[-1]}"
    return f"class {steps} of {len(SEVERITIES)}"


def margin(report: Report) -> str:
    """Where the interval is among the limits; empty if that says nothing."""
    excess = report.decision.excess_kl
    if excess.ci is None or report.nonfinite_positions:
        return ""
    low, high = excess.ci
    interval = f"The 95 % interval of the KL beyond the noise floor, {fmt.estimate(excess.mean, excess.ci).interval},"
    held = [
        f"{fmt.short(edge)}, where {name} begins"
        for edge, name in zip(edges(report), SEVERITIES[1:], strict=True)
        if low < edge < high
    ]
    if held:
        return f"{interval} holds {' and '.join(held)}."
    whole = ranges(report)[SEVERITIES.index(report.severity)]
    return f"{interval} is within {report.severity} ({whole} nats per token)."


def detectable(report: Report) -> str:
    """What this text can tell apart."""
    effect, least = report.decision.minimum_detectable_effect, report.decision.smallest_detectable_excess
    if effect is None:
        return "Not known: without an interval there is nothing to compute it from."
    text = (
        f"This text can resolve differences of {fmt.number(effect, 2)} nats per token from a limit "
        "(80 % power, 5 % level). A smaller difference may be inconclusive."
    )
    if least == 0:
        text += " The noise floor is exactly 0, so any excess over zero is a change."
    elif least is not None:
        text += f" An excess of {fmt.number(least, 2)} nats or more differs from zero."
    return text


def _cautions(report: Report) -> str:
    found = len(report.warnings)
    warned = "No warnings" if not found else "One warning" if found == 1 else f"{found} warnings"
    above = ", at the top of this page" if found else ""
    finite = (
        f"{fmt.count(report.nonfinite_positions)} positions gave values that are not finite"
        if report.nonfinite_positions
        else "every scored position gave finite values"
    )
    return f"{warned}{above}; {finite}."


def _thresholds(report: Report) -> Table:
    return Table(
        caption="Classes of the excess KL",
        style="few",
        columns=(Column("Class", "name"), Column("Mean excess KL, nats per token")),
        rows=tuple(
            (Cell(name, strong=name == report.severity), Cell(span))
            for name, span in zip(SEVERITIES, ranges(report), strict=True)
        ),
    )
