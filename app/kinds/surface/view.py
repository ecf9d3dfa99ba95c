"""The report of a surface as blocks: do two damages add up, how far may both knobs go, which path is cheapest."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace

from markupsafe import Markup

from app.kinds.surface import tables
from app.kinds.surface import words as said
from app.kinds.surface.report import SurfaceReport
from app.kinds.surface.words import (
    MEASURES,
    NONE_SHOWN,
    UNITS,
    answer,
    chosen_point,
    heading,
    label,
    left,
    level,
    loss_nats,
    name,
    setting,
    size_of,
    told_of,
)
from app.reports import format as fmt
from app.reports.blocks import Block, Chart, Code, Figure, Figures, Note, Section, filled, fold
from app.reports.charts.contour import STEPS, Axis, Line, Square, surface_chart
from app.reports.common import closing, headline, title
from app.reports.untrusted import visible

_MOST_ROWS = 6  # that the short output of a terminal has room for


def blocks(report: SurfaceReport) -> list[Block]:
    """What the report shows: first whether the damages add up, and what to take."""
    path = tables.path(report)
    points = tables.points(report)
    return [
        title(report, heading=answer(report)),
        Section("surface", heading(report), _found(report)),
        Section("contour", "How far both knobs go", _limits(report), "How far both go"),
        Section("interactions", "Do the damages add up", _interactions(report), "Interactions"),
        Section(
            "path",
            "The cheapest path",
            (replace(path, brief=len(path.rows) <= _MOST_ROWS), Note(said.path_note(report))),
            "Cheapest path",
        ),
        Section(
            "order",
            "The order of the two steps",
            (Note(said.orders_note(report), kind="plain"), *filled(tables.orders(report))),
            "Order",
        ),
        Section("settings", "Every setting", fold(f"{len(points.rows)} settings", [points]), "Settings"),
        headline(
            report,
            chart_title=f"Excess KL of the {told_of(report)} over the noise floor",
            sentence=left(report),
            nav=f"What the {told_of(report)} loses",
        ),
        *closing(report),
    ]


def _found(report: SurfaceReport) -> list[Block]:
    recipe = Code(_recipe(report), "The recipe of the chosen setting", brief=True)
    return [
        Note(visible(report.verdict), kind="sentence", brief=True),
        Figures(figures(report), brief=True),
        *([recipe] if report.chosen.within and report.chosen.recipe else []),
    ]


def _limits(report: SurfaceReport) -> list[Block]:
    caption = f"{_initial(MEASURES[report.contour.measure])} at every setting, and the line of {level(report)}"
    return [Chart(caption, loss_chart(report)), tables.limits(report), Note(said.limits_note(report))]


def _interactions(report: SurfaceReport) -> list[Block]:
    note = Note(said.interactions_note(report))
    chart = interaction_chart(report)
    if chart is None:
        return [note, Note("No setting that turns both knobs is finite at every position.", kind="plain")]
    unit = (
        "nats per token; coloured where it is not 0 for sure: orange where they compound, blue in a dashed rim where "
        "they overlap"
    )
    return [Chart("Interaction", chart, unit), note, tables.interactions(report)]


def figures(report: SurfaceReport) -> tuple[Figure, ...]:
    """The chosen setting, its size and loss, and the largest interaction."""
    chosen = chosen_point(report)
    found = [
        Figure(
            _initial(told_of(report)),
            f"{label(report, 0, chosen.first)} × {label(report, 1, chosen.second)}",
            f"{name(report, 0)} × {name(report, 1)}",
            "",
            "the smallest changed one within the loss" if report.chosen.within else NONE_SHOWN,
        ),
        Figure(
            "Size",
            size_of(report, chosen),
            "zeros not stored" if report.storage == "sparse" else "zeros stored",
            "",
            "",
        ),
    ]
    loss = fmt.estimate(chosen.loss.mean, chosen.loss.ci)
    unit = UNITS[report.contour.measure].strip() or MEASURES[report.contour.measure]
    found.append(Figure("Its loss", loss.value, unit, loss.interval or "no interval", f"chosen: {level(report)}"))
    given = [row for row in report.interactions if row.order == "as given"]
    if given:
        most = max(given, key=lambda row: abs(row.nats.mean or 0.0))
        nats = fmt.estimate(most.nats.mean, most.nats.ci)
        where = setting(report, most.first, most.second, most.order)
        found.append(
            Figure("Largest interaction", nats.value, "nats per token", nats.interval or "no interval", f"at {where}")
        )
    return tuple(found)


def _axes(report: SurfaceReport) -> tuple[bool, Axis, Axis]:
    """Whether the second knob is across, and both axes: the knob of fewer settings is across."""
    made = [
        Axis(name(report, which), [_short(label(report, which, place)) for place in range(len(knob.values))])
        for which, knob in enumerate(report.knobs)
    ]
    swapped = len(made[0].labels) > len(made[1].labels)
    return (True, made[1], made[0]) if swapped else (False, made[0], made[1])


def _grid(
    report: SurfaceReport, squares: dict[tuple[int, int], Square], lines: Sequence[Line], *, title: str, desc: str
) -> Markup:
    swapped, across, up = _axes(report)
    cells = [
        [squares.get((y, x) if swapped else (x, y)) for y in range(len(up.labels))] for x in range(len(across.labels))
    ]
    turned = [[(q, p) if swapped else (p, q) for p, q in line] for line in lines]
    return surface_chart(across, up, cells, turned, title=title, desc=desc)


def loss_chart(report: SurfaceReport) -> Markup:
    """The loss at every setting, with the line of the chosen loss."""
    given = [point for point in report.points if point.order == "as given"]
    losses = {(one.first, one.second): loss_nats(report, one.loss) for one in given}
    known = [value for value in losses.values() if value is not None and value > 0]
    chosen, by_kl = report.chosen, report.contour.measure == "kl"
    squares = {}
    for one in given:
        nats = losses[one.first, one.second]
        step = STEPS if nats is None else _step(nats, known)
        told = fmt.estimate(one.loss.mean, one.loss.ci)
        where = setting(report, one.first, one.second)
        why = "the model cannot take it" if one.refused else "not finite"
        squares[one.first, one.second] = Square(
            text="×" if nats is None else fmt.number(one.loss.mean, _digits(nats) if by_kl else 3),
            title=f"{where}: {why if nats is None else told}",
            step=step,
            marked=(one.first, one.second) == (chosen.first, chosen.second) and chosen.order == "as given",
        )
    return _grid(
        report,
        squares,
        report.contour.lines,
        title=f"{MEASURES[report.contour.measure]} at every setting",
        desc="; ".join(square.title for square in squares.values()) + f". The line is at {level(report)}.",
    )


def _step(nats: float, known: Sequence[float]) -> int:
    """1 to 7 on a logarithmic scale of what is there; 0 if nothing is lost."""
    if nats <= 0 or not known:
        return 0
    low, high = math.log(min(known)), math.log(max(known))
    return STEPS if high - low < 1e-9 else 1 + min(STEPS - 1, int((math.log(nats) - low) / (high - low) * STEPS))


def interaction_chart(report: SurfaceReport) -> Markup | None:
    """The interaction at every setting of both knobs; None if there is none."""
    rows = [row for row in report.interactions if row.order == "as given"]
    if not rows:
        return None
    largest = max(abs(row.nats.mean or 0.0) for row in rows) or 1.0
    squares = {}
    for row in rows:
        mean = row.nats.mean or 0.0
        step = 0 if row.kind not in said.DEPARTURES else max(1, round(STEPS * abs(mean) / largest))
        step = -step if mean < 0 else step
        told = fmt.estimate(mean, row.nats.ci)
        squares[row.first, row.second] = Square(
            text=fmt.signed(mean, _digits(mean)),
            title=f"{setting(report, row.first, row.second)}: {told} nats, {said.kind_text(row, report.margin)}",
            step=step,
        )
    return _grid(
        report,
        squares,
        (),
        title="Interaction at every setting of both knobs",
        desc="; ".join(square.title for square in squares.values()),
    )


def _recipe(report: SurfaceReport) -> str:
    """The chosen steps as JSON, one to a line."""
    steps = ",\n".join(f"  {visible(json.dumps(step, ensure_ascii=False))}" for step in report.chosen.recipe)
    return f"[\n{steps}\n]"


def _initial(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def _digits(value: float) -> int:
    """As many as a cell has room for on a telephone: a power of ten takes the place of the second."""
    return 2 if abs(value) >= 1e-3 else 1


def _short(text: str) -> str:
    """A setting as a chart has room for it, of nine columns on a telephone, too."""
    return "out" if text == "left out" else text
