"""Where the two models look: by layer and head."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from app.contracts.report import Mean
from app.kinds.attribute.blocks import AttentionHead, AttentionLayer, AttentionShift, Both
from app.reports.blocks import Cell, Column, Table
from app.web import format as fmt
from app.web.charts_internals import Cells, Series, heat_map, layer_curves
from app.web.sections.words_of_internals import mean_cell, on, told

FIRST_HEADS = 15


@dataclass(frozen=True)
class AttentionView:
    """What the page draws."""

    sentence: str
    divergence: Markup
    divergence_intervals: bool
    heads: Markup
    sink: Markup
    sink_intervals: bool
    worst: Table
    layers: Table
    note: str


def attention_maps(block: AttentionShift) -> AttentionView:
    """The view of a block."""
    return AttentionView(
        sentence=attention_sentence(block),
        divergence=layer_curves(
            (
                Series(
                    "all heads of a layer",
                    tuple(
                        (float(layer.candidate), layer.js.mean, layer.js.ci)
                        for layer in block.layers
                        if layer.js.mean is not None
                    ),
                ),
            ),
            title="Jensen–Shannon divergence of attention by layer, over its heads",
            unit="nats",
            last=_last(block),
            across="layer of the candidate",
            marks=_gaps(block),
        ),
        divergence_intervals=any(layer.js.ci for layer in block.layers),
        heads=heat_map(
            Cells(
                tuple(_layer(layer) for layer in block.layers),
                tuple(str(head.head) for head in block.layers[0].heads) if block.layers else (),
                tuple(tuple(head.js.mean for head in layer.heads) for layer in block.layers),
                "layer",
                "head",
                "nats",
            ),
            "Jensen–Shannon divergence of attention by layer and head",
        ),
        sink=layer_curves(
            (
                Series("candidate", _points(block, candidate=True)),
                Series("reference", _points(block, candidate=False), "other"),
            ),
            title="Share of attention on the first token",
            unit="share",
            last=_last(block),
            across="layer of the candidate",
            marks=_gaps(block),
        ),
        sink_intervals=any(ci for candidate in (True, False) for *_, ci in _points(block, candidate=candidate)),
        worst=_worst(block),
        layers=_layers(block),
        note=(
            "Attention distributions over the keys of each query, by transformers’ eager attention in float32, "
            f"{on(block.measured)}. Range is the mean distance to what is attended, the first token left out."
        ),
    )


def _last(block: AttentionShift) -> int:
    return max((layer.candidate for layer in block.layers), default=0)


def _gaps(block: AttentionShift) -> list[tuple[float, str]]:
    """Between which layers of the candidate there are layers without a partner, of either model."""
    return [
        ((one.candidate + other.candidate) / 2, "gap")
        for one, other in pairwise(block.layers)
        if (other.reference - one.reference, other.candidate - one.candidate) != (1, 1)
    ]


def _layer(layer: AttentionLayer) -> str:
    return str(layer.candidate) if layer.reference == layer.candidate else f"{layer.reference}→{layer.candidate}"


def _layer_in_words(layer: AttentionLayer) -> str:
    """A matched pair by both of its numbers, where these are two."""
    if layer.reference == layer.candidate:
        return f"layer {layer.candidate}"
    return f"layer {layer.candidate} of the candidate ({layer.reference} of the reference)"


def _points(block: AttentionShift, *, candidate: bool) -> tuple[tuple[float, float, tuple[float, float] | None], ...]:
    found = []
    for layer in block.layers:
        mean: Mean = layer.sink.candidate if candidate else layer.sink.reference
        if mean.mean is not None:
            found.append((float(layer.candidate), mean.mean, mean.ci))
    return tuple(found)


def attention_sentence(block: AttentionShift) -> str:
    """How far attention moves, in which head most, and what the first token draws."""
    heads = [(head.js.mean or 0.0, layer, head) for layer in block.layers for head in layer.heads]
    if not heads:
        return "No layer of the two models matches."
    if not block.js.mean:
        return "Every head looks exactly where the reference’s looks."
    _, layer, head = max(heads, key=lambda one: one[0])
    return (
        f"Attention moves by {told(block.js)} nats (Jensen–Shannon) over all heads, most in head {head.head} of "
        f"{_layer_in_words(layer)}: {told(head.js)}. The first token draws "
        f"{told(block.sink.candidate, percent=True)}\u00a0% of it, "
        f"{told(block.sink.reference, percent=True)}\u00a0% in the reference."
    )


def worst_heads(block: AttentionShift, count: int) -> str:
    """The heads that moved most, in a line; empty where none moved."""
    moved = [(layer, head) for layer, head in _ranked(block)[:count] if head.js.mean]
    return "; ".join(f"layer {_layer(layer)} head {head.head}: {told(head.js)}" for layer, head in moved)


def _ranked(block: AttentionShift) -> list[tuple[AttentionLayer, AttentionHead]]:
    """All heads, those that moved most first."""
    heads = [(layer, head) for layer in block.layers for head in layer.heads]
    return sorted(heads, key=lambda one: -(one[1].js.mean or 0.0))


def _worst(block: AttentionShift) -> Table:
    heads = _ranked(block)
    return Table(
        caption="Heads that moved most",
        columns=(
            Column("Layer, head", "name"),
            Column("JS, nats"),
            Column("KL, nats"),
            Column("TV"),
            Column("Sink, ref. → cand."),
            Column("Entropy, nats"),
            Column("Range, tokens"),
        ),
        rows=tuple(
            (
                Cell(
                    f"{_layer(layer)}, {head.head}",
                    "" if head.head == head.partner else f"against head {head.partner}",
                ),
                mean_cell(head.js, strong=True),
                mean_cell(Mean(mean=head.kl, ci=head.kl_ci)),
                mean_cell(Mean(mean=head.tv, ci=head.tv_ci)),
                *(_both(both) for both in (head.sink, head.entropy, head.range)),
            )
            for layer, head in heads[:FIRST_HEADS]
        ),
    )


def _both(both: Both) -> Cell:
    """Reference → candidate, above their intervals."""
    ours, theirs = fmt.estimate(both.reference, both.reference_ci), fmt.estimate(both.candidate, both.candidate_ci)
    note = f"{ours.interval or 'no interval'} → {theirs.interval or 'no interval'}"
    return Cell(f"{ours.value} → {theirs.value}", note if ours.interval or theirs.interval else "no interval")


def _layers(block: AttentionShift) -> Table:
    return Table(
        caption="By layer, over all heads",
        columns=(
            Column("Layer", "name"),
            Column("JS, nats"),
            Column("KL, nats"),
            Column("TV"),
            Column("Sink, reference"),
            Column("Sink, candidate"),
            Column("Entropy, reference"),
            Column("Entropy, candidate"),
            Column("Range, reference"),
            Column("Range, candidate"),
        ),
        rows=tuple(
            (
                Cell(_layer(layer)),
                mean_cell(layer.js, strong=True),
                mean_cell(layer.kl),
                mean_cell(layer.tv),
                *(
                    mean_cell(mean)
                    for both in (layer.sink, layer.entropy, layer.range)
                    for mean in (both.reference, both.candidate)
                ),
            )
            for layer in block.layers
        ),
    )
