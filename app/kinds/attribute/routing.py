"""Which experts tokens go to."""

from __future__ import annotations

from markupsafe import Markup

from app.contracts.report import Mean
from app.kinds.attribute.blocks import RoutingLayer, RoutingShift
from app.kinds.attribute.words import mean_cell, mean_text, on
from app.reports import format as fmt
from app.reports.blocks import Cell, Chart, Column, Note, Section, Table
from app.reports.charts.internals import Cells, heat_map
from app.reports.charts.marks import Guide, axis, interval_strip
from app.reports.scales import LinearScale


def routing(block: RoutingShift) -> Section:
    """How many choices change in each layer, and how the load of the experts moves."""
    found = (
        Note(routing_sentence(block), kind="sentence"),
        choices_table(block),
        Chart("Change of load by layer and expert", _loads(block), "percentage points of all choices"),
        margins_table(block),
        Note(
            f"Of {block.experts} experts the reference chooses {block.chosen[0]} per token, the candidate "
            f"{block.chosen[1]}. Measured in float32 {on(block.measured)}, both models run whole."
        ),
    )
    return Section("routing", "Which experts tokens go to", found, "Routing")


def routing_sentence(block: RoutingShift) -> str:
    """How many choices of experts change, and in which layer most."""
    if not block.changed.mean:
        return "Every token goes to the same experts in every layer."
    worst = max(block.layers, key=lambda layer: layer.changed.mean or 0.0)
    own = "its router alone changes none"
    if worst.own.mean:
        own = f"its router alone changes {_percent(worst.own)}"
    return (
        f"Of the experts that either model chooses for a token, {_percent(block.changed)} are chosen by one alone. "
        f"Most are in layer {worst.layer}: {_percent(worst.changed)}; {own}."
    )


def _percent(mean: Mean) -> str:
    return f"{mean_text(mean, percent=True)}\u00a0%"


def _loads(block: RoutingShift) -> Markup:
    moved = tuple(
        tuple(100 * abs(theirs - ours) for ours, theirs in zip(one.load_reference, one.load_candidate, strict=True))
        for one in block.layers
    )
    layers = tuple(str(layer.layer) for layer in block.layers)
    cells = Cells(layers, tuple(map(str, range(block.experts))), moved, "layer", "expert", "points")
    return heat_map(cells, "Change of each expert’s load, in percentage points of all choices")


def choices_table(block: RoutingShift) -> Table:
    """Choices that change, by layer."""
    ends = [value for layer in block.layers for value in (layer.changed.mean, *(layer.changed.ci or ()))]
    shares = [0.0, *(value for value in ends if value is not None)]
    scale = LinearScale(min(shares), max(shares) * 1.06 or 1.0)
    columns = (
        Column("Layer", "name"),
        Column("Choices changed, %"),
        Column("With 95 % interval", "chart"),
        Column("Tokens with a change, %"),
        Column("By the router alone, %"),
        Column("KL of the router, nats", priority=1),
        Column("Load moved, %", priority=1),
    )
    rows = tuple(
        (
            Cell(str(layer.layer)),
            mean_cell(layer.changed, strong=True, percent=True),
            Cell(chart=_strip(layer, scale)),
            mean_cell(layer.any_changed, percent=True),
            mean_cell(layer.own, percent=True),
            mean_cell(layer.divergence),
            mean_cell(layer.load_shift, percent=True),
        )
        for layer in block.layers
    )
    below = axis(scale, "share of the experts that either chooses, linear axis")
    return Table("Choices that change, by layer", columns, rows, below, "stack strips")


def _strip(layer: RoutingLayer, scale: LinearScale) -> Markup:
    name = f"layer {layer.layer}: {mean_text(layer.changed, percent=True)} %"
    return interval_strip(name, layer.changed.mean, layer.changed.ci, scale, [Guide(0.0, "base")])


def margins_table(block: RoutingShift) -> Table:
    """How near choices are to another one, and the busiest experts."""
    columns = (
        Column("Layer", "name"),
        Column("If the choice changed, nats"),
        Column("If it stayed, nats"),
        Column("Busiest expert, reference", "text"),
        Column("Busiest expert, candidate", "text"),
    )
    rows = tuple(
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
    )
    caption = "Margin between the last expert chosen and the first not, in the reference"
    return Table(caption, columns, rows)
