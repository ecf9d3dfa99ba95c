"""What a reader of the report has to be warned of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

from app.contracts.simulation import SECTION
from app.kinds.attribute.answer import layers_in_words
from app.kinds.attribute.blocks import Measured
from app.kinds.attribute.report import Site
from app.kinds.attribute.words import named
from workers.analysis.numerals import counted
from workers.diagnosis.attribute.changes import config_differences
from workers.diagnosis.attribute.found import Found
from workers.diagnosis.attribute.gaps import gap_name
from workers.diagnosis.attribute.search import Search
from workers.diagnosis.attribute.sites import Site as Part
from workers.diagnosis.attribute.treatment import on_text
from workers.distributions.intervals import FEWEST_CLUSTERS
from workers.measuring.assemble import left_out, of_making, repeated_documents

# Share of resamplings in which a pair of the alignment is found again, above which it is spoken of.
ALIKE = 0.5


def warnings_of(found: Found, sites: tuple[Site, ...], nonfinite: int) -> list[str]:
    """All warnings of the report. `nonfinite`: positions of the whole candidate without finite logits."""
    warned = [*of_making(found.sides), *found.allowed, *forms(found)]
    warned += [*repeated_documents(found.corpus), *left_out(nonfinite), *_controls(found, sites)]
    warned += matched_otherwise(found)
    warned += _gaps_not_finite(found)
    if found.search is not None:
        warned += not_finite(found.search)
        warned += not_reached(found.search)
    return warned + _too_few(found)


def forms(found: Found) -> list[str]:
    """What the models' forms mean for what was measured layer by layer, if anything was."""
    if found.not_swapped and found.internals is None:
        return []
    reference, candidate = found.sides.reference.info, found.sides.candidate.info
    warned = [
        f"The {name}'s weights are packed ({info.scheme}). Layers ran with its dequantized weights: rounding in its "
        "own kernels is in the whole model's KL and in no part's."
        for name, info in (("reference", reference), ("candidate", candidate))
        if info.quantization is not None
    ]
    if SECTION in candidate.config:
        warned.append(
            "The candidate quantizes activations or its cache while it runs. No part of the weights holds that: only "
            "the engine's KL includes it."
        )
    elif not found.not_swapped and (names := config_differences(reference, candidate)):
        warned.append(
            f"The configurations differ ({named(names)}): a whole layer runs as its own model runs it, the head brings "
            "what its model does with logits, finer parts are weights alone."
        )
    return warned


def _controls(found: Found, sites: tuple[Site, ...]) -> list[str]:
    """Parts that change something if they are swapped by themselves. A control that is not finite is in no report."""
    looks = {} if found.examination is None else found.examination.looks
    changed = [site.name for site in sites if site.control]
    broken = [name for name, look in looks.items() if not np.isfinite(look.control)]
    warned = []
    if changed:
        warned.append(
            f"Swapping {named(changed)} by itself changed something. The nats of these parts cannot be trusted."
        )
    if broken:
        warned.append(f"Swapping {named(broken)} by itself left logits that are not finite. Its control shows nothing.")
    return warned


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
    warned = []
    if nowhere:
        warned.append(
            f"Without finite logits at any position: {named(nowhere)}. They have no nats, are worse than all that "
            "have some, and were not looked into."
        )
    if partly:
        warned.append(
            f"Without finite logits at some positions: {named(partly)}. Their nats are over the other positions."
        )
    return warned


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
        f"The candidate's {layers_in_words(other)} resemble layers of other numbers in the reference. Parts were "
        "swapped by their numbers: their nats may be those of another layer."
    ]


def not_reached(search: Search) -> list[str]:
    """What the budget did not reach: layers by their numbers, and how much of what is in layers."""
    warned = []
    budget = f"The budget of {search.budget:g} forward passes did not reach"
    if search.untried:
        layers = [site.layer for site in search.untried if site.layer is not None]
        names = [layers_in_words(layers)] if layers else []
        names += [site.name for site in search.untried if site.layer is None]
        warned.append(f"{budget} {' and '.join(names)}: the worst part may be among them.")
    left = _by_layer(search.left_out)
    if left:
        tried = _by_layer(one.site for one in search.found.values())
        never = left.keys() - tried.keys()
        none = f"; nothing in {layers_in_words(never)} was tried" if never else ""
        warned.append(f"{budget} {left.total()} of {left.total() + tried.total()} parts within layers{none}.")
    return warned


def _by_layer(sites: Iterable[Part]) -> Counter[int]:
    """How many parts there are within each layer."""
    return Counter(site.layer for site in sites if site.layer is not None and not site.whole)


def _too_few(found: Found) -> list[str]:
    """A warning if parts were measured on fewer than six documents. Intervals are clustered by windows then, and there
    are none with fewer than six windows."""
    if found.not_swapped:
        alignment = None if found.internals is None else found.internals.alignment
        return [] if alignment is None else too_few(alignment.measured)
    if found.subset is None or found.search is None or not found.search.found:
        return []
    where, windows = found.subset.where, len(found.subset.windows)
    documents = int(np.unique(where.document).size)
    return too_few(Measured(windows=windows, tokens=len(where), documents=documents))


def too_few(text: Measured) -> list[str]:
    """The same of what parts were measured on."""
    if text.documents >= FEWEST_CLUSTERS:
        return []
    on = f"Parts were measured on {on_text(text.tokens, text.documents)}"
    if text.windows >= FEWEST_CLUSTERS:
        return [f"{on}, fewer than six: their intervals are clustered by windows, and too narrow."]
    return [
        f"{on}, in {counted(text.windows, 'window')}: fewer than six of either, so that there is no interval. Give "
        "more and longer documents, or more `tokens`."
    ]
