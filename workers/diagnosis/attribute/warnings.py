"""What a reader of the report has to be warned of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

from app.contracts.notice import Notice
from app.contracts.simulation import SECTION
from app.kinds.attribute.blocks import Measured
from app.kinds.attribute.notices import AttributeNotice
from app.kinds.attribute.report import Site
from workers.diagnosis.attribute.changes import config_differences
from workers.diagnosis.attribute.found import Found
from workers.diagnosis.attribute.gaps import gap_name
from workers.diagnosis.attribute.search import Search
from workers.diagnosis.attribute.sites import Site as Part
from workers.distributions.intervals import FEWEST_CLUSTERS
from workers.measuring.assemble import left_out, of_making, repeated_documents

# Share of resamplings in which a pair of the alignment is found again, above which it is spoken of.
ALIKE = 0.5


def warnings_of(found: Found, sites: tuple[Site, ...], nonfinite: int) -> list[Notice]:
    """All warnings of the report. `nonfinite`: positions of the whole candidate without finite logits."""
    warned = [*of_making(found.sides), *found.allowed, *forms(found)]
    warned += [*repeated_documents(found.corpus), *left_out(nonfinite), *_controls(found, sites)]
    warned += matched_otherwise(found)
    warned += _gaps_not_finite(found)
    if found.search is not None:
        warned += not_finite(found.search)
        warned += not_reached(found.search)
    return warned + _too_few(found)


def forms(found: Found) -> list[Notice]:
    """What the models' forms mean for what was measured layer by layer, if anything was."""
    if found.not_swapped and found.internals is None:
        return []
    reference, candidate = found.sides.reference.info, found.sides.candidate.info
    warned = [
        AttributeNotice.DEQUANTIZED_LAYERS(model=name, scheme=info.scheme)
        for name, info in (("reference", reference), ("candidate", candidate))
        if info.quantization is not None
    ]
    if SECTION in candidate.config:
        warned.append(AttributeNotice.QUANTIZED_WHILE_RUNNING())
    elif not found.not_swapped and (names := config_differences(reference, candidate)):
        warned.append(AttributeNotice.OTHER_CONFIGURATION(names=tuple(names)))
    return warned


def _controls(found: Found, sites: tuple[Site, ...]) -> list[Notice]:
    """Parts that change something if they are swapped by themselves. A control that is not finite is in no report."""
    looks = {} if found.examination is None else found.examination.looks
    changed = [site.name for site in sites if site.control]
    broken = [name for name, look in looks.items() if not np.isfinite(look.control)]
    warned = []
    if changed:
        warned.append(AttributeNotice.CONTROL_CHANGED(parts=tuple(changed)))
    if broken:
        warned.append(AttributeNotice.CONTROL_NOT_FINITE(parts=tuple(broken)))
    return warned


def _gaps_not_finite(found: Found) -> list[Notice]:
    """Gaps, and what both models have, whose logits have no nats."""
    alignment = None if found.internals is None else found.internals.alignment
    if alignment is None or not found.not_swapped:
        return []
    measured = [(gap_name(gap), gap.nats) for gap in alignment.gaps]
    measured.append(("what both models have", alignment.matched))
    names = tuple(name for name, nats in measured if nats.mean is None)
    return [AttributeNotice.GAPS_NOT_FINITE(parts=names)] if names else []


def not_finite(search: Search) -> list[Notice]:
    """Parts whose logits are not finite, at all positions or at some."""
    nowhere = tuple(one.site.name for one in search.nowhere_finite)
    partly = tuple(one.site.name for one in search.ranked if not np.isfinite(one.kl).all())
    warned = []
    if nowhere:
        warned.append(AttributeNotice.NOWHERE_FINITE(parts=nowhere))
    if partly:
        warned.append(AttributeNotice.PARTLY_FINITE(parts=partly))
    return warned


def matched_otherwise(found: Found) -> list[Notice]:
    """Parts that were swapped by their numbers, although most resamplings match layers of other numbers."""
    alignment = None if found.internals is None else found.internals.alignment
    if found.not_swapped or alignment is None:
        return []
    # what could not be resampled is named, too: nothing speaks against it
    other = tuple(
        pair.candidate
        for pair in alignment.pairs
        if pair.reference != pair.candidate and (pair.stability is None or pair.stability > ALIKE)
    )
    return [AttributeNotice.MATCHED_OTHERWISE(layers=other)] if other else []


def not_reached(search: Search) -> list[Notice]:
    """What the budget did not reach: layers by their numbers, and how much of what is in layers."""
    warned = []
    if search.untried:
        layers = tuple(site.layer for site in search.untried if site.layer is not None)
        parts = tuple(site.name for site in search.untried if site.layer is None)
        warned.append(AttributeNotice.NOT_REACHED(budget=search.budget, layers=layers, parts=parts))
    left = _by_layer(search.left_out)
    if left:
        tried = _by_layer(one.site for one in search.found.values())
        never = tuple(sorted(left.keys() - tried.keys()))
        counts = {"left": left.total(), "all": left.total() + tried.total()}
        warned.append(AttributeNotice.PARTS_NOT_REACHED(budget=search.budget, layers=never, **counts))
    return warned


def _by_layer(sites: Iterable[Part]) -> Counter[int]:
    """How many parts there are within each layer."""
    return Counter(site.layer for site in sites if site.layer is not None and not site.whole)


def _too_few(found: Found) -> list[Notice]:
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


def too_few(text: Measured) -> list[Notice]:
    """The same of what parts were measured on."""
    if text.documents >= FEWEST_CLUSTERS:
        return []
    few = AttributeNotice.FEW_DOCUMENTS if text.windows >= FEWEST_CLUSTERS else AttributeNotice.NO_INTERVAL
    return [few(tokens=text.tokens, documents=text.documents, windows=text.windows)]
