"""All that was measured inside the two models, section by section."""

from __future__ import annotations

from dataclasses import dataclass

from app.kinds.attribute.blocks import Internals
from app.web.sections.activation_growth import GrowthView, activation_growth, growth_sentence
from app.web.sections.attention_maps import AttentionView, attention_maps, attention_sentence, worst_heads
from app.web.sections.layer_alignment import AlignmentView, alignment_sentence, layer_alignment
from app.web.sections.routing import RoutingView, routing, routing_sentence
from app.web.untrusted import visible

# Heads that a line names.
HEADS = 3


@dataclass(frozen=True)
class InternalsView:
    """What the page draws; None where a block was not measured."""

    alignment: AlignmentView | None
    attention: AttentionView | None
    growth: GrowthView | None
    routing: RoutingView | None
    not_measured: tuple[str, ...]


def internals(block: Internals) -> InternalsView:
    """The view of all blocks."""
    return InternalsView(
        alignment=None if block.alignment is None else layer_alignment(block.alignment),
        attention=None if block.attention is None else attention_maps(block.attention),
        growth=None if block.activations is None else activation_growth(block.activations),
        routing=None if block.routing is None else routing(block.routing),
        not_measured=tuple(visible(why) for why in block.not_measured),
    )


def inside_lines(block: Internals) -> tuple[str, ...]:
    """The findings in a few lines, and where the rest is; none where nothing was measured."""
    lines = []
    if block.alignment is not None:
        lines.append(f"Layers: {alignment_sentence(block.alignment)}")
    if block.activations is not None:
        lines.append(f"Error growth: {growth_sentence(block.activations)}")
    if block.attention is not None:
        lines.append(f"Attention: {attention_sentence(block.attention)}")
        if heads := worst_heads(block.attention, HEADS):
            lines.append(f"Heads that moved most (JS, nats): {heads}.")
    if block.routing is not None:
        lines.append(f"Routing: {routing_sentence(block.routing)}")
    lines += [f"Not measured: {why}." for why in block.not_measured]
    if lines:
        lines.append("Every layer, head and border: the page (--output), or `internals` of the report (--json).")
    return tuple(lines)
