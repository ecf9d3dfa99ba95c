"""Where the two models look: by layer and head."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from markupsafe import Markup

from app.contracts.report import Mean
from app.kinds.attribute.blocks import AttentionHead, AttentionLayer, AttentionShift, Both
from app.kinds.attribute.words import NO_INTERVAL, mean_cell, mean_text, on, with_intervals
from app.reports import format as fmt
from app.reports.blocks import Block, Cell, Chart, Column, Note, Section, Table, fold
from app.reports.charts.internals import Cells, Series, heat_map, layer_curves

_FIRST_HEADS = 15
_UNIT = "Jensen–Shannon, nats per query"


def attention(block: AttentionShift) -> Section:
    """How far attention moves in each layer and head, and what the first token draws."""
    divergence = [_series(block, "all heads of a layer", lambda layer: layer.js)]
    sink = [
        _series(block, "candidate", lambda layer: layer.sink.candidate),
        _series(block, "reference", lambda layer: layer.sink.reference, "other"),
    ]
    found: list[Block] = [
        Note(attention_sentence(block), kind="sentence"),
        Chart(
            f"Divergence of attention by layer, {_intervals(divergence)}",
            _curves(block, divergence, "Jensen–Shannon divergence of attention by layer, over its heads", "nats"),
            _UNIT,
        ),
        Chart("Divergence of attention by layer and head", _heads(block), _UNIT),
        Chart(
            f"Attention on the first token (sink), {_intervals(sink)}",
            _curves(block, sink, "Share of attention on the first token", "share"),
        ),
        heads_table(block),
        *fold("Every layer: divergence, sink, entropy, range", [layers_table(block)]),
        Note(
            "Attention distributions over the keys of each query, by transformers’ eager attention in float32, "
            f"{on(block.measured)}. Range is the mean distance to what is attended, the first token left out."
        ),
    ]
    return Section("attention", "Where the models look", found, "Attention")


def attention_sentence(block: AttentionShift) -> str:
    """How far attention moves, in which head most, and what the first token draws."""
    heads = _ranked(block)
    if not heads:
        return "No layer of the two models matches."
    if not block.js.mean:
        return "Every head looks exactly where the reference’s looks."
    layer, head = heads[0]
    where = f"layer {layer.candidate}"
    if layer.reference != layer.candidate:
        where += f" of the candidate ({layer.reference} of the reference)"
    ours, theirs = (mean_text(mean, percent=True) for mean in (block.sink.reference, block.sink.candidate))
    return (
        f"Attention moves by {mean_text(block.js)} nats (Jensen–Shannon) over all heads, most in head {head.head} of "
        f"{where}: {mean_text(head.js)}. The first token draws {theirs}\u00a0% of it, {ours}\u00a0% in the reference."
    )


def _ranked(block: AttentionShift) -> list[tuple[AttentionLayer, AttentionHead]]:
    """All heads, those that moved most first."""
    heads = [(layer, head) for layer in block.layers for head in layer.heads]
    return sorted(heads, key=lambda one: -(one[1].js.mean or 0.0))


def _series(block: AttentionShift, name: str, of: Callable[[AttentionLayer], Mean], kind: str = "main") -> Series:
    means = [(float(layer.candidate), of(layer)) for layer in block.layers]
    return Series(name, tuple((place, mean.mean, mean.ci) for place, mean in means if mean.mean is not None), kind)


def _intervals(curves: list[Series]) -> str:
    return with_intervals(any(ci for curve in curves for *_, ci in curve.points))


def _curves(block: AttentionShift, curves: list[Series], title: str, unit: str) -> Markup:
    """Curves over layers; a mark is where a layer of either model has no partner."""
    gaps = [
        ((one.candidate + other.candidate) / 2, "gap")
        for one, other in pairwise(block.layers)
        if (other.reference - one.reference, other.candidate - one.candidate) != (1, 1)
    ]
    last = max((layer.candidate for layer in block.layers), default=0)
    return layer_curves(curves, title=title, unit=unit, last=last, across="layer of the candidate", marks=gaps)


def _heads(block: AttentionShift) -> Markup:
    heads = block.layers[0].heads if block.layers else ()
    cells = Cells(
        tuple(map(_name, block.layers)),
        tuple(str(head.head) for head in heads),
        tuple(tuple(head.js.mean for head in layer.heads) for layer in block.layers),
        "layer",
        "head",
        "nats",
    )
    return heat_map(cells, "Jensen–Shannon divergence of attention by layer and head")


def _name(layer: AttentionLayer) -> str:
    return str(layer.candidate) if layer.reference == layer.candidate else f"{layer.reference}→{layer.candidate}"


def heads_table(block: AttentionShift) -> Table:
    """The heads that moved most."""
    columns = (
        Column("Layer, head", "name"),
        Column("JS, nats"),
        Column("KL, nats", priority=2),
        Column("TV", priority=2),
        Column("Sink, ref. → cand.", priority=1),
        Column("Entropy, nats", priority=1),
        Column("Range, tokens", priority=1),
    )
    rows = tuple(
        (
            Cell(f"{_name(layer)}, {head.head}", _partner(head)),
            mean_cell(head.js, strong=True),
            mean_cell(Mean(mean=head.kl, ci=head.kl_ci)),
            mean_cell(Mean(mean=head.tv, ci=head.tv_ci)),
            *map(_both_cell, (head.sink, head.entropy, head.range)),
        )
        for layer, head in _ranked(block)[:_FIRST_HEADS]
    )
    return Table("Heads that moved most", columns, rows, style="stack wide")


def _partner(head: AttentionHead) -> str:
    return "" if head.head == head.partner else f"against head {head.partner}"


def _both_cell(both: Both) -> Cell:
    """Reference → candidate, above their intervals."""
    ours, theirs = fmt.estimate(both.reference, both.reference_ci), fmt.estimate(both.candidate, both.candidate_ci)
    note = f"{ours.interval or NO_INTERVAL} → {theirs.interval or NO_INTERVAL}"
    return Cell(f"{ours.value} → {theirs.value}", note if ours.interval or theirs.interval else NO_INTERVAL)


def layers_table(block: AttentionShift) -> Table:
    """Each layer, over all its heads."""
    shifts = (Column("JS, nats"), Column("KL, nats", priority=1), Column("TV", priority=1))
    both = (
        Column(f"{name}, {model}", priority=priority)
        for name, priority in (("Sink", 1), ("Entropy", 2), ("Range", 3))
        for model in ("reference", "candidate")
    )
    rows = tuple(
        (
            Cell(_name(layer)),
            mean_cell(layer.js, strong=True),
            mean_cell(layer.kl),
            mean_cell(layer.tv),
            *(
                mean_cell(mean)
                for one in (layer.sink, layer.entropy, layer.range)
                for mean in (one.reference, one.candidate)
            ),
        )
        for layer in block.layers
    )
    return Table("By layer, over all heads", (Column("Layer", "name"), *shifts, *both), rows, style="stack wide")
