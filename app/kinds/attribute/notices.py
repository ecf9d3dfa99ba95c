"""What limits an attribution."""

from app.contracts.notice import Fact, Notices
from app.kinds.attribute.answer import layers_in_words


class AttributeNotice(Notices):
    """Of an attribute report. `{where}` is what `layers` and `parts` name together."""

    DEQUANTIZED_LAYERS = (
        "The {model}'s weights are packed ({scheme}). Layers ran with its dequantized weights. The rounding of its "
        "own kernels is in the whole model's KL, but in no part's."
    )
    QUANTIZED_WHILE_RUNNING = (
        "The candidate quantizes activations or its cache while it runs. No part of the weights contains that loss: "
        "only the engine's KL includes it."
    )
    OTHER_CONFIGURATION = (
        "The configurations differ ({names:4}). A whole layer runs with its own model's configuration, and so does "
        "the head. Finer parts are weights only."
    )
    CONTROL_CHANGED = "Swapping {parts:4} by itself changed something. The nats of these parts cannot be trusted."
    CONTROL_NOT_FINITE = "Swapping {parts:4} by itself left logits that are not finite. Its control shows nothing."
    GAPS_NOT_FINITE = "These parts have no nats, because logits are not finite at some position: {parts}."
    NOWHERE_FINITE = (
        "These parts leave no finite logits at any position: {parts:4}. They have no nats, are worse than all parts "
        "with nats, and their cause was not looked for."
    )
    PARTLY_FINITE = (
        "These parts leave logits that are not finite at some positions: {parts:4}. Their nats are over the other "
        "positions."
    )
    MATCHED_OTHERWISE = (
        "The candidate's {where} are most similar to layers of other numbers in the reference. Parts were swapped by "
        "number, so their nats may belong to another layer."
    )
    NOT_REACHED = "The budget of {budget:g} forward passes did not reach {where}: the worst part may be among them."
    PARTS_NOT_REACHED = (
        "The budget of {budget:g} forward passes did not reach {left} of {all} parts within layers"
        "{where:; nothing in * was tried}."
    )
    FEW_DOCUMENTS = (
        "Parts were measured on {tokens:#token} of {documents:#document}, fewer than six. Their intervals are "
        "clustered by windows, and too narrow."
    )
    NO_INTERVAL = (
        "Parts were measured on {tokens:#token} of {documents:#document}, in {windows:#window}: fewer than six of "
        "either, so there is no interval. Give more and longer documents, or more `tokens`."
    )

    def written(self, facts: dict[str, Fact]) -> str:
        """The text with its facts, layers by the ends of long runs."""
        layers, parts = (facts.get(name, ()) for name in ("layers", "parts"))
        assert isinstance(layers, tuple) and isinstance(parts, tuple)  # noqa: S101 - as every member has them
        named = [layers_in_words(map(int, layers))] if layers else []
        return super().written(facts | {"where": " and ".join([*named, *map(str, parts)])})
