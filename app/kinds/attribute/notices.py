"""What limits or spoils an attribution."""

from app.contracts.notice import Fact, Notices
from app.kinds.attribute.answer import layers_in_words


class AttributeNotice(Notices):
    """Of an attribute report. `{where}` is what `layers` and `parts` name together."""

    DEQUANTIZED_LAYERS = (
        "The {model}'s weights are packed ({scheme}). Layers ran with its dequantized weights: rounding in its own "
        "kernels is in the whole model's KL and in no part's."
    )
    QUANTIZED_WHILE_RUNNING = (
        "The candidate quantizes activations or its cache while it runs. No part of the weights holds that: only the "
        "engine's KL includes it."
    )
    OTHER_CONFIGURATION = (
        "The configurations differ ({names:4}): a whole layer runs as its own model runs it, the head brings what its "
        "model does with logits, finer parts are weights alone."
    )
    CONTROL_CHANGED = "Swapping {parts:4} by itself changed something. The nats of these parts cannot be trusted."
    CONTROL_NOT_FINITE = "Swapping {parts:4} by itself left logits that are not finite. Its control shows nothing."
    GAPS_NOT_FINITE = "Without nats, since logits are not finite at some position: {parts}."
    NOWHERE_FINITE = (
        "Without finite logits at any position: {parts:4}. They have no nats, are worse than all that have some, and "
        "were not looked into."
    )
    PARTLY_FINITE = "Without finite logits at some positions: {parts:4}. Their nats are over the other positions."
    MATCHED_OTHERWISE = (
        "The candidate's {where} resemble layers of other numbers in the reference. Parts were swapped by their "
        "numbers: their nats may be those of another layer."
    )
    NOT_REACHED = "The budget of {budget:g} forward passes did not reach {where}: the worst part may be among them."
    PARTS_NOT_REACHED = (
        "The budget of {budget:g} forward passes did not reach {left} of {all} parts within layers"
        "{where:; nothing in * was tried}."
    )
    FEW_DOCUMENTS = (
        "Parts were measured on {tokens:#token} of {documents:#document}, fewer than six: their intervals are "
        "clustered by windows, and too narrow."
    )
    NO_INTERVAL = (
        "Parts were measured on {tokens:#token} of {documents:#document}, in {windows:#window}: fewer than six of "
        "either, so that there is no interval. Give more and longer documents, or more `tokens`."
    )

    def written(self, facts: dict[str, Fact]) -> str:
        """The text with its facts, layers by the ends of long runs."""
        layers, parts = (facts.get(name, ()) for name in ("layers", "parts"))
        assert isinstance(layers, tuple) and isinstance(parts, tuple)  # noqa: S101 - as every member has them
        named = [layers_in_words(map(int, layers))] if layers else []
        return super().written(facts | {"where": " and ".join([*named, *map(str, parts)])})
