"""What a reader of the report has to be warned of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from app.kinds.attribute.answer import layers_in_words
from app.kinds.attribute.report import Site
from workers.analysis.numerals import counted
from workers.diagnosis.attribute.found import Found
from workers.diagnosis.attribute.gaps import gap_name
from workers.diagnosis.attribute.naming import listed, named, on_text
from workers.diagnosis.attribute.search import Search
from workers.diagnosis.attribute.sites import Site as Part
from workers.diagnosis.attribute.subset import SHORTEST_CUT, Missed
from workers.distributions.intervals import FEWEST_CLUSTERS
from workers.distributions.token_values import Positions
from workers.measuring.assemble import left_out, of_making, repeated_documents

# Share of resamplings in which a pair of the alignment is found again, above which it is spoken of.
ALIKE = 0.5
# What lets parts see more of the text before some are dropped.
_MORE = "Give more `tokens`, or a larger `budget`."


def warnings_of(found: Found, sites: tuple[Site, ...], nonfinite: int) -> list[str]:
    """All warnings of the report. `nonfinite`: positions of the whole candidate without finite logits."""
    told = [*of_making(found.sides), *found.allowed, *found.also]
    told += [*repeated_documents(found.corpus), *left_out(nonfinite), *_controls(found, sites)]
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


def _controls(found: Found, sites: tuple[Site, ...]) -> list[str]:
    """Parts that change something if they are swapped by themselves. A control that is not finite is in no report."""
    looks = {} if found.looking is None else found.looking.looks
    changed = [site.name for site in sites if site.control]
    broken = [name for name, look in looks.items() if not np.isfinite(look.control)]
    told = []
    if changed:
        told.append(
            f"Swapping {named(changed)} by itself changed something. The nats of these parts cannot be trusted."
        )
    if broken:
        told.append(f"Swapping {named(broken)} by itself left logits that are not finite. Its control shows nothing.")
    return told


def _gaps_not_finite(found: Found) -> list[str]:
    """Gaps, and what both models have, whose logits have no nats."""
    alignment = None if found.internals is None else found.internals.alignment
    if alignment is None or not found.not_swapped:
        return []
    measured = [(gap_name(gap), gap.nats) for gap in alignment.gaps]
    measured.append(("what both models have", alignment.matched))
    names = [name for name, nats in measured if nats.mean is None]
    return [f"Without nats, since logits are not finite at some position: {', '.join(names)}."] if names else []


def not_finite(search: Search) -> list[str]:
    """Parts whose logits are not finite, at all positions or at some."""
    nowhere = [one.site.name for one in search.nowhere_finite]
    partly = [one.site.name for one in search.ranked if not np.isfinite(one.kl).all()]
    told = []
    if nowhere:
        told.append(
            f"Without finite logits at any position: {named(nowhere)}. They have no nats, are worse than all that "
            "have some, and were not looked into."
        )
    if partly:
        told.append(
            f"Without finite logits at some positions: {named(partly)}. Their nats are over the other positions."
        )
    return told


def matched_otherwise(found: Found) -> list[str]:
    """Parts that were swapped by their numbers, although most resamplings match layers of other numbers."""
    alignment = None if found.internals is None else found.internals.alignment
    if found.not_swapped or alignment is None:
        return []
    # what could not be resampled is named, too: nothing speaks against it
    other = [
        pair.candidate
        for pair in alignment.pairs
        if pair.reference != pair.candidate and (pair.stability is None or pair.stability > ALIKE)
    ]
    if not other:
        return []
    return [
        f"The candidate's {listed(other)} resemble layers of other numbers in the reference. Parts were swapped by "
        "their numbers: their nats may be those of another layer."
    ]


def not_reached(search: Search) -> list[str]:
    """What the budget did not reach: layers by their numbers, and how much of what is in layers."""
    told = []
    budget = f"The budget of {search.budget:g} forward passes did not reach"
    if search.untried:
        layers = [site.layer for site in search.untried if site.layer is not None]
        names = [layers_in_words(layers)] if layers else []
        names += [site.name for site in search.untried if site.layer is None]
        told.append(f"{budget} {' and '.join(names)}: the worst part may be among them.")
    left = _by_layer(search.left_out)
    if left:
        tried = _by_layer(one.site for one in search.found.values())
        never = left.keys() - tried.keys()
        none = f"; nothing in {layers_in_words(never)} was tried" if never else ""
        told.append(f"{budget} {left.total()} of {left.total() + tried.total()} parts within layers{none}.")
    return told


def _by_layer(sites: Iterable[Part]) -> Counter[int]:
    """How many parts there are within each layer."""
    return Counter(site.layer for site in sites if site.layer is not None and not site.whole)


def _too_few(found: Found, sites: tuple[Site, ...]) -> list[str]:
    if found.not_swapped:
        alignment = None if found.internals is None else found.internals.alignment
        if alignment is None:
            return []
        text = alignment.measured
        return too_few(text.tokens, text.windows, text.documents)
    if found.subset is None or found.search is None or not found.search.found:
        return []
    where = found.subset.where
    told = too_few(len(where), len(found.subset.windows), int(np.unique(where.document).size))
    return told + too_few_at_first([site.tokens for site in sites], where)


def too_few(tokens: int, windows: int, documents: int) -> list[str]:
    """A warning if parts were measured on fewer than six documents: intervals are clustered by windows then, and there
    are none with fewer than six of these."""
    if documents >= FEWEST_CLUSTERS:
        return []
    on = f"Parts were measured on {on_text(tokens, documents)}"
    if windows >= FEWEST_CLUSTERS:
        return [f"{on}, fewer than six: their intervals are clustered by windows, and too narrow."]
    return [
        f"{on}, in {counted(windows, 'window')}: fewer than six of either, so that there is no interval. Give more "
        "documents, or more `tokens`."
    ]


def too_few_at_first(parts: Sequence[int], where: Positions) -> list[str]:
    """Warnings if some parts saw a first part of the text alone, which has too little for intervals that the whole has
    enough for. `parts`: scored positions of each; `where`: those of the whole."""
    documents, windows = _clusters(where, len(where))
    early = [(tokens, *_clusters(where, tokens)) for tokens in parts if tokens < len(where)]
    # if the whole has too little, `too_few` warns of all parts
    without = [tokens for tokens, _, pieces in early if pieces < FEWEST_CLUSTERS <= windows]
    narrow = [tokens for tokens, texts, pieces in early if texts < FEWEST_CLUSTERS <= min(pieces, documents)]
    told = []
    if without:
        told.append(
            f"{_on_the_first(without, where)}: fewer than six of either, so that they have no interval. {_MORE}"
        )
    if narrow:
        told.append(
            f"{_on_the_first(narrow, where)}: fewer than six documents, so that intervals are clustered by windows, "
            f"and too narrow. {_MORE}"
        )
    return told


def _clusters(where: Positions, tokens: int) -> tuple[int, int]:
    """(documents, windows) of the first so many scored positions."""
    return int(np.unique(where.document[:tokens]).size), int(np.unique(where.window[:tokens]).size)


def _on_the_first(parts: Sequence[int], where: Positions) -> str:
    """How many parts were measured on how much of the text, as the beginning of a sentence."""
    tokens = max(parts)
    documents, windows = _clusters(where, tokens)
    on = f"{on_text(tokens, documents)}, in {counted(windows, 'window')}"
    return f"Measured on the first {on}, or fewer: {counted(len(parts), 'part')}"


def fallen_out(missed: Missed) -> list[str]:
    """A warning if documents fell out although intervals need them: how many, why, and what to give."""
    why = []
    if missed.short:
        shorter = ", or fewer `tokens`" if missed.length > SHORTEST_CUT else ""
        why.append(
            f"{missed.short} have no window of {missed.length} tokens (give longer documents, or more of them{shorter})"
        )
    if missed.over:
        enough = min(FEWEST_CLUSTERS, missed.documents - missed.short) * missed.length
        why.append(f"{missed.over} are beyond `tokens` (give {enough})")
    if not why:
        return []
    return [
        f"Parts were not measured on {missed.short + missed.over} of {missed.documents} documents: {'; '.join(why)}."
    ]
