"""The front: what no other recipe beats in bytes and KL at once, as a chart and a table."""

from __future__ import annotations

from markupsafe import Markup

from app.kinds.mitigate.report import FrontPoint, MitigateReport, Trial
from app.kinds.mitigate.treatments import described
from app.reports import format as fmt
from app.reports.blocks import Block, Cell, Chart, Column, Note, Table
from app.reports.charts.front import Dot, front_chart
from app.reports.charts.marks import Guide, axis, interval_strip
from app.reports.estimates import estimate_cell
from app.reports.scales import LogScale
from app.reports.untrusted import visible


def front(report: MitigateReport) -> list[Block]:
    """The chart if there is more than the candidate, the table, and how the recommended one is picked."""
    drawn = chart(report)
    caption = "KL(p‖q) on the test documents, with its 95 % interval"
    charts = [Chart(caption, drawn, "nats per token, logarithmic")] if drawn else []
    return [*charts, points(report), Note(visible(report.rule))]


def words(point: FrontPoint | Trial) -> str:
    """Its treatments in words; `the candidate as it is` if there is none."""
    return visible(described(point.treatments))


def growth(size: int, base: int) -> str:
    """How many more bytes than the candidate."""
    change = 100 * (size - base) / max(1, base)
    if abs(change) < 0.005:
        return "as many bytes"
    return f"{fmt.number(abs(change), 3)} % {'more' if change > 0 else 'fewer'} bytes"


def spread(point: FrontPoint) -> str:
    """The slowest and the fastest pass that a speed is the median of; empty if none was timed."""
    if point.tokens_per_second_range is None:
        return ""
    slowest, fastest = (fmt.count(round(one)) for one in point.tokens_per_second_range)
    return f"passes {slowest} to {fastest}"


def chart(report: MitigateReport) -> Markup | None:
    """KL and tokens/s against bytes; None if there is the candidate alone."""
    known = [point for point in report.front if point.kl.mean is not None]
    dots = [_dot(number, point) for number, point in enumerate(known, 1)]
    if len(dots) < 2:
        return None
    return front_chart(dots, budget=report.budget.bytes, note="KL on the test documents against bytes")


def _dot(number: int, point: FrontPoint) -> Dot:
    kind = "recommended" if point.recommended else "front" if point.treatments else "candidate"
    label = {"recommended": f"{number}, recommended", "front": str(number), "candidate": "candidate"}[kind]
    title = f"{words(point)}, {fmt.estimate(point.kl.mean, point.kl.ci)} nats, {fmt.size(point.bytes)}"
    return Dot(label, title, point.bytes, point.kl.mean or 0.0, point.kl.ci, point.tokens_per_second, kind)


def points(report: MitigateReport) -> Table:
    """Every point of the front, fewest bytes first."""
    scale = LogScale.around(*[kl for point in report.front for kl in (point.kl.mean, *(point.kl.ci or ())) if kl])
    return Table(
        caption="The front: what no other recipe beats in bytes and KL at once",
        columns=(
            Column("", "name"),
            Column("Treatment", "text"),
            Column("Size"),
            Column("Bits per weight", priority=2),
            Column("KL on test, nats"),
            Column("With 95 % interval", "chart"),
            Column("Saved, nats", priority=2),
            Column("Tokens/s", priority=1),
        ),
        rows=tuple(_row(number, point, report, scale) for number, point in enumerate(report.front, 1)),
        axis=axis(scale, "KL in nats, logarithmic axis"),
        style="stack strips told",
        brief=True,
    )


def _row(number: int, point: FrontPoint, report: MitigateReport, scale: LogScale) -> tuple[Cell, ...]:
    notes = ["recommended"] if point.recommended else []
    notes += [] if point.within_budget else ["beyond the budget"]
    more = 100 * (point.bytes - report.candidate_bytes) / max(1, report.candidate_bytes)
    slower = "" if point.added_latency is None else f"{fmt.signed(100 * point.added_latency, 2)} % time"
    speed = ", ".join(filter(None, (spread(point), slower)))
    spoken = f"{number}: {fmt.estimate(point.kl.mean, point.kl.ci)} nats"
    return (
        Cell(str(number)),
        Cell(words(point), ", ".join(notes), strong=point.recommended),
        Cell(fmt.size(point.bytes), f"{fmt.signed(more, 3)} %" if more else ""),
        Cell(fmt.number(point.bits_per_weight, 4)),
        estimate_cell(point.kl),
        Cell(chart=interval_strip(spoken, point.kl.mean, point.kl.ci, scale, [Guide(scale.low, "base")])),
        Cell(fmt.NONE) if point.saved is None else estimate_cell(point.saved, strong=False),
        Cell(fmt.count(round(point.tokens_per_second)), speed),
    )
