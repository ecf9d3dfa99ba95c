"""Which experts tokens go to."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from app.kinds.attribute.blocks import RoutingShift
from app.reports.blocks import Cell, Column, Table
from app.web import format as fmt
from app.web.charts import Guide, axis, interval_strip
from app.web.charts_internals import Cells, heat_map
from app.web.scales import LinearScale
from app.web.sections.words_of_internals import mean_cell, on, told


@dataclass(frozen=True)
class RoutingView:
    """What the page draws."""

    sentence: str
    layers: Table
    loads: Markup
    margins: Table
    note: str


def routing(block: RoutingShift) -> RoutingView:
    """The view of a block."""
    return RoutingView(
        sentence=routing_sentence(block),
        layers=_layers(block),
        loads=heat_map(
            Cells(
                tuple(str(layer.layer) for layer in block.layers),
                tuple(map(str, range(block.experts))),
                tuple(
                    tuple(
                        100 * abs(theirs - ours)
                        for ours, theirs in zip(layer.load_reference, layer.load_candidate, strict=True)
                    )
                    for layer in block.layers
                ),
                "layer",
                "expert",
                "points",
            ),
            "Change of each expert’s load, in percentage points of all choices",
        ),
        margins=_margins(block),
        note=(
            f"Of {block.experts} experts the reference chooses {block.chosen[0]} a token, the candidate "
            f"{block.chosen[1]}. Measured in float32 {on(block.measured)}, both models run whole."
        ),
    )


def routing_sentence(block: RoutingShift) -> str:
    """How many choices of experts change, and where most."""
    if not block.changed.mean:
        return "Every token goes to the same experts in every layer."
    worst = max(block.layers, key=lambda layer: layer.changed.mean or 0.0)
    own = (
        f"its router alone changes {told(worst.own, percent=True)}\u00a0%"
        if worst.own.mean
        else "none of it by its router"
    )
    changed = told(block.changed, percent=True)
    return (
        f"Of the experts that either model chooses for a token, {changed}\u00a0% are chosen by one alone, most in "
        f"layer {worst.layer}: {told(worst.changed, percent=True)}\u00a0%, {own}."
    )


def _layers(block: RoutingShift) -> Table:
    shares = [
        value
        for layer in block.layers
        for value in (layer.changed.mean, *(layer.changed.ci or ()))
        if value is not None
    ]
    scale = LinearScale(min([0.0, *shares]), max([0.0, *shares]) * 1.06 or 1.0)
    return Table(
        caption="Choices that change, by layer",
        columns=(
            Column("Layer", "name"),
            Column("Choices changed, %"),
            Column("With 95 % interval", "chart"),
            Column("Tokens with a change, %"),
            Column("By the router alone, %"),
            Column("KL of the router, nats"),
            Column("Load moved, %"),
        ),
        rows=tuple(
            (
                Cell(str(layer.layer)),
                mean_cell(layer.changed, strong=True, percent=True),
                Cell(
                    chart=interval_strip(
                        f"layer {layer.layer}: {told(layer.changed, percent=True)} %",
                        layer.changed.mean,
                        layer.changed.ci,
                        scale,
                        [Guide(0.0, "base")],
                    )
                ),
                mean_cell(layer.any_changed, percent=True),
                mean_cell(layer.own, percent=True),
                mean_cell(layer.divergence),
                mean_cell(layer.load_shift, percent=True),
            )
            for layer in block.layers
        ),
        axis=axis(scale, "share of the experts that either chooses, linear axis"),
    )


def _margins(block: RoutingShift) -> Table:
    return Table(
        caption="Margin at the boundary between the last expert chosen and the first not, in the reference",
        columns=(
            Column("Layer", "name"),
            Column("Where the choice changed, nats"),
            Column("Where it stayed, nats"),
            Column("Busiest expert, reference", "text"),
            Column("Busiest expert, candidate", "text"),
        ),
        rows=tuple(
            (
                Cell(str(layer.layer)),
                mean_cell(layer.margin_changed),
                mean_cell(layer.margin_same),
                *(
                    Cell(f"{loads.index(max(loads))}: {fmt.percent(max(loads))} %")
                    for loads in (layer.load_reference, layer.load_candidate)
                ),
            )
            for layer in block.layers
        ),
    )
