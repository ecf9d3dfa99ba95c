"""What a surface job found: do two damages add up, how far may both knobs go, and which path is cheapest."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from app.kinds.surface.report import SurfaceReport
from app.reports.blocks import Fact, Figure, Table
from app.web import format as fmt
from app.web.charts_contour import STEPS, Axis, Line, Square, surface_chart
from app.web.sections import surface_slices as slices
from app.web.sections import surface_tables as tables
from app.web.sections import surface_words as said
from app.web.sections.classes import definitions
from app.web.sections.surface_words import (
    MEASURES,
    NONE_SHOWN,
    UNITS,
    chosen_point,
    heading,
    label,
    level,
    loss_nats,
    name,
    outcome,
    setting,
    size_of,
    told_of,
)
from app.web.untrusted import visible


@dataclass(frozen=True)
class Surface:
    """Texts, charts and tables of the page."""

    heading: str
    sentence: str
    good: bool
    told_of: str
    outcome: str
    figures: tuple[Figure, ...]
    recipe: str
    loss_title: str
    loss: Markup
    limits: Table
    limits_note: str
    interactions_chart: Markup | None
    interactions: Table
    interactions_note: str
    domains: Table
    domains_note: str
    domains_by_setting: Table
    token_classes: Table
    token_classes_note: str
    kinds_by_setting: Table
    definitions: tuple[Fact, ...]
    path: Table
    path_note: str
    orders: Table
    orders_note: str
    points: Table


def surface(report: SurfaceReport) -> Surface:
    """The view of a report."""
    return Surface(
        heading=heading(report),
        sentence=visible(report.verdict),
        good=report.chosen.within,
        told_of=told_of(report),
        outcome=outcome(report),
        figures=_figures(report),
        recipe=_recipe(report),
        loss_title=f"{_initial(MEASURES[report.contour.measure])} at every setting, and the line of {level(report)}",
        loss=_loss_chart(report),
        limits=tables.limits(report),
        limits_note=said.limits_note(report),
        interactions_chart=_interaction_chart(report),
        interactions=tables.interactions(report),
        interactions_note=said.interactions_note(report),
        domains=slices.domains(report),
        domains_note=slices.domains_note(report),
        domains_by_setting=slices.domains_by_setting(report),
        token_classes=slices.token_classes(report),
        token_classes_note=slices.token_classes_note(report),
        kinds_by_setting=slices.kinds_by_setting(report),
        definitions=definitions(report.token_classes.classes),
        path=tables.path(report),
        path_note=said.path_note(report),
        orders=tables.orders(report),
        orders_note=said.orders_note(report),
        points=tables.points(report),
    )


def _figures(report: SurfaceReport) -> tuple[Figure, ...]:
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
            Figure("Largest interaction", nats.value, "nats a token", nats.interval or "no interval", f"at {where}")
        )
    return tuple(found)


def _axes(report: SurfaceReport) -> tuple[bool, Axis, Axis]:
    """Whether the second knob lies across, and both axes: the knob of fewer settings lies across."""
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


def _loss_chart(report: SurfaceReport) -> Markup:
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
    """1 to 7 on a logarithmic scale of what is there; 0 where nothing is lost."""
    if nats <= 0 or not known:
        return 0
    low, high = math.log(min(known)), math.log(max(known))
    return STEPS if high - low < 1e-9 else 1 + min(STEPS - 1, int((math.log(nats) - low) / (high - low) * STEPS))


def _interaction_chart(report: SurfaceReport) -> Markup | None:
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
    """The chosen steps as JSON, one a line; empty where nothing is recommended."""
    steps = report.chosen.recipe if report.chosen.within else ()
    return "[\n" + ",\n".join(f"  {json.dumps(step, ensure_ascii=False)}" for step in steps) + "\n]" if steps else ""


def _initial(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def _digits(value: float) -> int:
    """As many as a cell has room for on a telephone: a power of ten takes the place of the second."""
    return 2 if abs(value) >= 1e-3 else 1


def _short(text: str) -> str:
    """A setting as a chart has room for it, of nine columns on a telephone, too."""
    return "out" if text == "left out" else text
