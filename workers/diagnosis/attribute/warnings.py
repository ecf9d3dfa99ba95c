"""What a reader of the report has to be warned of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from app.kinds.attribute.answer import layers_in_words
from app.kinds.attribute.report import Site
from workers.diagnosis.attribute.found import Found
from workers.diagnosis.attribute.gaps import gap_name
from workers.diagnosis.attribute.naming import count, listed, on_text, some
from workers.diagnosis.attribute.search import Search
from workers.diagnosis.attribute.sites import Site as Part
from workers.diagnosis.attribute.subset import SHORTEST_CUT, Missed
from workers.distributions.intervals import FEWEST_CLUSTERS
from workers.distributions.token_values import Positions
from workers.measuring.assemble import left_out, of_making, repeated_documents

# Share of resamplings in which a pair of the alignment is found again, above which it is spoken of.
ALIKE = 0.5


def warnings_of(found: Found, sites: tuple[Site, ...], nonfinite: int) -> list[str]:
    """All warnings of the report. `nonfinite`: positions of the whole candidate without finite logits."""
    told = [*of_making(found.sides), *found.warnings, *repeated_documents(found.corpus), *left_out(nonfinite)]
    broken = [site.name for site in sites if site.control]
    if broken:
        told.append(
            f"Swapping {', '.join(broken[:4])} by itself changed something, which must not be: the nats of these parts "
            "cannot be trusted."
        )
    told += _controls_not_finite(found)
    told += matched_otherwise(found)
    told += _gaps_not_finite(found)
    search = found.search
    if search is not None:
        told += not_finite(search)
        told += not_reached(search)
    told += _too_few(found, sites)
    # of what had nothing to swap, nothing was measured on documents
    if found.subset is not None and (found.search is None or found.search.found):
        told += fallen_out(found.subset.missed)
    return told


def _controls_not_finite(found: Found) -> list[str]:
    """Where not even the part itself left logits finite: such a control is no number, and none of a report."""
    looks = {} if found.looking is None else found.looking.looks
    names = [name for name, look in looks.items() if not np.isfinite(look.control)]
    if not names:
        return []
    return [
        f"Swapping {', '.join(names[:4])} by itself left logits that are not finite at some position: that it changes "
        "nothing is not shown there."
    ]


def _gaps_not_finite(found: Found) -> list[str]:
    """Gaps, and what both models have, whose logits have no nats."""
    alignment = None if found.internals is None else found.internals.alignment
    if alignment is None or not found.not_swapped:
        return []
    measured = [(gap_name(gap), gap.nats) for gap in alignment.gaps]
    measured.append(("what both models have", alignment.matched))
    names = [name for name, nats in measured if nats.mean is None]
    if not names:
        return []
    return [
        f"Run in the model of the other, {', '.join(names)} left logits that are not finite at some position: of that "
        "no nats are told."
    ]


def _too_few(found: Found, sites: tuple[Site, ...]) -> list[str]:
    if found.not_swapped:
        alignment = None if found.internals is None else found.internals.alignment
        if alignment is None:
            return []
        text = alignment.measured
        return too_few(text.tokens, text.windows, text.documents, swapped=False)
    if found.subset is None or found.search is None or not found.search.found:
        return []
    where = found.subset.where
    told = too_few(len(where), len(found.subset.windows), int(np.unique(where.document).size), swapped=True)
    return told + too_few_at_first([site.tokens for site in sites], where)


def not_finite(search: Search) -> list[str]:
    """Parts whose logits are not finite, at all positions or at some."""
    told = []
    nowhere = search.nowhere_finite
    if nowhere:
        told.append(
            f"{count(nowhere)} made no finite logits at any position ({some(nowhere)}), and so no nats: worse than "
            "all that have any, looked into no further, and listed before the ranking."
        )
    partly = [one for one in search.ranked if not np.isfinite(one.kl).all()]
    if partly:
        told.append(
            f"{count(partly)} made logits that are not finite at some positions ({some(partly)}): "
            f"{'its' if len(partly) == 1 else 'their'} nats are over the other positions."
        )
    return told


def matched_otherwise(found: Found) -> list[str]:
    """Where parts were swapped by their numbers, and most resamplings match layers of other numbers."""
    alignment = None if found.internals is None else found.internals.alignment
    if found.not_swapped or alignment is None:
        return []
    # what could not be resampled is told, too: nothing speaks against it
    other = [
        pair
        for pair in alignment.pairs
        if pair.reference != pair.candidate and (pair.stability is None or pair.stability > ALIKE)
    ]
    if not other:
        return []
    numbers = listed([pair.candidate for pair in other])
    return [
        f"By their similarity {numbers} of the candidate stand for layers of other numbers in the reference. Parts "
        "were swapped by their numbers: nats there may be those of another layer in a layer's place."
    ]


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


def _by_layer(sites: Iterable[Part]) -> Counter[int]:
    """How many parts there are within each layer."""
    return Counter(site.layer for site in sites if site.layer is not None and not site.whole)


# What lets parts see more of the text before some are dropped.
_MORE = "Give more `tokens`, or a larger `budget`, with which fewer parts are dropped so early."


def too_few_at_first(parts: Sequence[int], where: Positions) -> list[str]:
    """Warnings where some parts were measured on a first part of the text alone, which has too little for intervals
    that the whole has enough for. `parts`: scored positions of each; `where`: those of the whole."""
    documents, windows = _clusters(where, len(where))
    early = [(tokens, *_clusters(where, tokens)) for tokens in parts if tokens < len(where)]
    told = []
    # where the whole has too little, `too_few` tells it of all parts
    without = [tokens for tokens, _, pieces in early if pieces < FEWEST_CLUSTERS <= windows]
    if without:
        so = (
            "its nats have no interval and whether it does"
            if len(without) == 1
            else ("their nats have no interval and whether they do")
        )
        told.append(
            f"{_on_the_first(without, where)}: fewer than six of either, so that {so} damage (`shown`) is not "
            f"told. {_MORE}"
        )
    narrow = [tokens for tokens, texts, pieces in early if texts < FEWEST_CLUSTERS <= min(pieces, documents)]
    if narrow:
        intervals = "its intervals are" if len(narrow) == 1 else "their intervals are"
        told.append(
            f"{_on_the_first(narrow, where)}: fewer than six documents, so that {intervals} clustered by windows, and "
            f"too narrow. {_MORE}"
        )
    return told


def _clusters(where: Positions, tokens: int) -> tuple[int, int]:
    """(documents, windows) of the first so many scored positions."""
    return int(np.unique(where.document[:tokens]).size), int(np.unique(where.window[:tokens]).size)


def _on_the_first(parts: Sequence[int], where: Positions) -> str:
    """How many parts were measured on how much of the text, as the beginning of a sentence."""
    tokens = max(parts)
    documents, windows = _clusters(where, tokens)
    were = "1 part was" if len(parts) == 1 else f"{len(parts)} parts were"
    most = "the first" if min(parts) == tokens else "no more than the first"
    pieces = f"{windows} window{'' if windows == 1 else 's'}"
    return f"{were} measured on {most} {on_text(tokens, documents)}, in {pieces}"


def fallen_out(missed: Missed) -> list[str]:
    """A warning where documents fell out although intervals need them: how many, why, and what to give."""
    why = []
    if missed.short:
        shorter = ", or fewer `tokens`, by which they are cut shorter" if missed.length > SHORTEST_CUT else ""
        why.append(
            f"{missed.short} for want of a window of {missed.length} tokens, to which all are cut (give longer "
            f"documents, or more of them{shorter})"
        )
    if missed.over:
        enough = min(FEWEST_CLUSTERS, missed.documents - missed.short) * missed.length
        why.append(f"{missed.over} for want of `tokens` (give {enough})")
    if not why:
        return []
    count = missed.short + missed.over
    fell = "1 document of the text is" if count == 1 else f"{count} of the {missed.documents} documents are"
    return [f"{fell} not among those that parts were measured on: {'; '.join(why)}."]


def too_few(tokens: int, windows: int, documents: int, *, swapped: bool) -> list[str]:
    """A warning where parts, `swapped` or as the alignment has them, were measured on fewer than six documents: what
    intervals there are is then clustered by windows, and with fewer than six of these there is none."""
    if documents >= FEWEST_CLUSTERS:
        return []
    on = f"Parts were {'swapped' if swapped else 'measured'} on {on_text(tokens, documents)}"
    if windows >= FEWEST_CLUSTERS:
        return [f"{on}, fewer than six: their intervals are clustered by windows, and are too narrow."]
    pieces = f"{windows} window{'' if windows == 1 else 's'}"
    return [
        f"{on}, in {pieces}: fewer than six of either, so that no number of a part has an interval. Give more "
        "documents, or more `tokens`."
    ]
