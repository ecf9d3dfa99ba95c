"""All that was measured inside the two models, section by section."""

from __future__ import annotations

from dataclasses import dataclass

from app.contracts.attribute_blocks import Internals
from app.web.sections.activation_growth import GrowthView, activation_growth
from app.web.sections.attention_maps import AttentionView, attention_maps
from app.web.sections.layer_alignment import AlignmentView, layer_alignment
from app.web.sections.routing import RoutingView, routing
from app.web.untrusted import visible


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
