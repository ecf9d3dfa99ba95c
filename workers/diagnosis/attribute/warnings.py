"""What a reader of the report has to be warned of."""

from __future__ import annotations

import numpy as np

from app.kinds.attribute.report import Site
from workers.diagnosis.attribute.few import fallen_out, too_few, too_few_at_first
from workers.diagnosis.attribute.found import Found
from workers.diagnosis.attribute.gaps import gap_name
from workers.diagnosis.attribute.naming import count, listed, some
from workers.diagnosis.attribute.reach import not_reached
from workers.diagnosis.attribute.search import Search
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
