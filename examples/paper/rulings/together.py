"""Rules on two modifications together: additive inside the safe zone, compounding outside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from app.kinds.surface.report import Interaction, SurfacePoint, SurfaceReport
from app.reports.charts.contour import Axis, Square, surface_chart
from examples.paper.finding import Chart, Figure, Finding, NoNumberError, decided
from examples.paper.rulings.reports import NATS, ORIGINAL, RATIO, Reports, beyond, near_lossless

JOB: Final = "prune-and-quantize"
MARGIN: Final = 0.02
# Nats of interaction at which the chart's colour steps up.
_STEPS: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


def additive_inside(reports: Reports) -> Finding:
    """At settings of which each knob alone is near-lossless, the interaction against the margin."""
    report = reports.of(JOB, SurfaceReport)
    figures = [_figure(report, cell) for cell in report.interactions if _safe(report, cell)]
    inside = [figure for figure in figures if figure.low > -MARGIN and figure.high < MARGIN]
    outside = [figure for figure in figures if figure.low > MARGIN or figure.high < -MARGIN]
    outcome = decided(confirmed=bool(figures) and len(inside) == len(figures), refuted=bool(outside))
    sentence = (
        f"{len(figures)} settings are safe. At {len(inside)} of them the interaction is within ±{MARGIN:g} nats."
        if figures
        else "No setting is safe: each has a knob that is not near-lossless alone."
    )
    return Finding(outcome, sentence, tuple(figures), (_chart(report),))


def compounds_outside(reports: Reports) -> Finding:
    """At settings of which one knob alone is beyond near-lossless, the kinds after Holm's correction, and the intervals
    before it."""
    report = reports.of(JOB, SurfaceReport)
    cells = [cell for cell in report.interactions if _harmful(report, cell)]
    figures = [_figure(report, cell) for cell in cells]
    compound = [one.what for one, cell in zip(figures, cells, strict=True) if cell.kind == "compounds"]
    overlap = [one.what for one, cell in zip(figures, cells, strict=True) if cell.kind == "overlaps"]
    above = [figure for figure in figures if figure.low > 0]
    below = [figure for figure in figures if figure.high < 0]
    half = len(cells) / 2
    # One kind is shown, corrected, at most settings, and the other one not even hinted at, uncorrected, at any.
    outcome = decided(
        confirmed=len(compound) > half and not below,
        refuted=len(overlap) > half and not above,
    )
    sentence = (
        f"Of {len(cells)} settings outside the safe zone, {len(compound)} compound and {len(overlap)} overlap, "
        f"corrected for their number.{_named('Compounding', compound)}{_named('Overlapping', overlap)} "
        f"Without the correction the interval is above 0 at {len(above)} and below 0 at {len(below)}."
    )
    return Finding(outcome, sentence, tuple(figures))


def _named(kind: str, names: list[str]) -> str:
    return f" {kind}: {'; '.join(names)}." if names else ""


def _alone(report: SurfaceReport, cell: Interaction) -> Iterator[Figure]:
    """Perplexity over the original's with each knob alone. Raises `NoNumberError` where one was not measured."""
    points: dict[tuple[int, int], SurfacePoint] = {
        (point.first, point.second): point for point in report.points if point.order == "as given"
    }
    for place in ((cell.first, 0), (0, cell.second)):
        point = points.get(place)
        if point is None or point.refused:
            raise NoNumberError(f"the setting {place} of the surface was not measured")
        yield Figure.of(f"setting {place}", point.perplexity_ratio, RATIO, ORIGINAL)


def _safe(report: SurfaceReport, cell: Interaction) -> bool:
    return all(near_lossless(figure) for figure in _alone(report, cell))


def _harmful(report: SurfaceReport, cell: Interaction) -> bool:
    return any(beyond(figure) for figure in _alone(report, cell))


def _figure(report: SurfaceReport, cell: Interaction) -> Figure:
    pruned, rounded = report.knobs
    what = f"{pruned.values[cell.first]} zeros, {rounded.values[cell.second]} bits"
    return Figure.of(what, cell.nats, NATS, "the sum of both alone")


def _chart(report: SurfaceReport) -> Chart:
    pruned, rounded = report.knobs
    squares: list[list[Square | None]] = [[None for _ in rounded.values] for _ in pruned.values]
    for cell in report.interactions:
        if cell.order == "as given":
            figure = _figure(report, cell)
            step = sum(abs(figure.value) >= edge for edge in _STEPS)
            squares[cell.first][cell.second] = Square(f"{figure.value:+.3f}", f"{figure.what}: {figure} nats", step)
    caption = "Interaction of zeros and bits, nats per token"
    told = "; ".join(square.title for column in squares for square in column if square)
    across = Axis("share of zeros, Wanda", [_label(value, "none") for value in pruned.values])
    up = Axis("bits", [_label(value, "16") for value in rounded.values])
    return Chart("interaction", caption, surface_chart(across, up, squares, [], title=caption, desc=told))


def _label(value: object, zero: str) -> str:
    return zero if value is None else f"{value}"
