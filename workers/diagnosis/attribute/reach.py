"""What the budget of a search did not reach for, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from app.kinds.attribute.answer import layers_in_words
from workers.diagnosis.attribute.search import Search
from workers.diagnosis.attribute.sites import Site


def not_reached(search: Search) -> list[str]:
    """What was left out, in sentences: layers by their numbers; of what is in them how much, and of which layers."""
    told = []
    budget = f"The budget of {search.budget:g} forward passes"
    layers = [site.layer for site in search.untried if site.layer is not None]
    outside = [site.name for site in search.untried if site.layer is None]
    if search.untried:
        names = " and ".join([*([layers_in_words(layers)] if layers else []), *outside])
        told.append(
            f"{budget} did not reach for all that differs: {names} were not tried, and the worst part may be among "
            "them. Those that were tried are spread evenly over the model."
        )
    left = _by_layer(search.left_out)
    if left:
        told.append(f"{budget} left out {_within(search, left)}")
    return told


def _within(search: Search, left: Counter[int]) -> str:
    """How many parts within layers were left out, and which layers were looked into."""
    tried = _by_layer(one.site for one in search.found.values())
    count = left.total()
    if not tried:
        return f"all {count} parts within layers that differ: it looked into no layer."
    wholly = [layer for layer in tried if layer not in left]
    partly = [layer for layer in tried if layer in left]
    never = [layer for layer in left if layer not in tried]
    looked = [f"all that differs in {layers_in_words(wholly)}"] if wholly else []
    looked += [f"a part of what differs in {layers_in_words(partly)}"] if partly else []
    rest = f", and at nothing in {layers_in_words(never)}" if never else ""
    order = "Layers came in the order of their nats" if search.by_damage else "Parts are spread evenly over the model"
    return (
        f"{count} of {count + tried.total()} parts within layers that differ: it looked at {' and '.join(looked)}"
        f"{rest}. {order}."
    )


def _by_layer(sites: Iterable[Site]) -> Counter[int]:
    """How many parts there are within each layer."""
    return Counter(site.layer for site in sites if site.layer is not None and not site.whole)
