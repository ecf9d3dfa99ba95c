"""Matched layers of models of two widths, as parts of a report."""

from __future__ import annotations

from app.contracts.report import Mean
from app.kinds.attribute.blocks import MatchedLayers, MatchedSpan
from app.kinds.attribute.report import Cause, Site, Treatment
from app.models.checkpoint import CheckpointInfo
from workers.diagnosis.attribute.cause import without_damage
from workers.diagnosis.attribute.found import Found
from workers.diagnosis.attribute.gaps import stitched_told
from workers.diagnosis.attribute.reach import layers_told
from workers.diagnosis.attribute.sites import Site as Part
from workers.diagnosis.attribute.sites import sites_of
from workers.diagnosis.attribute.treatment import Patient, treat, waiting
from workers.diagnosis.numerals import numeral

# Nats that float32 rounds a model's states by where nothing is changed: measured are 1e-13 to 1e-10, of which none is
# damage, however it compares with what a map rounds.
ROUNDED = 1e-8


def matched_sites(found: Found) -> tuple[Site, ...]:
    """What was run through a map: single layers, and spans that were not cut or whose halves show nothing of what they
    do. What left logits that are not finite has no nats and is none of them."""
    block = None if found.internals is None else found.internals.matched_layers
    if block is None:
        return ()
    patient = found.patient()
    return tuple(_site(span, block, patient) for span in told_spans(block) if span.stitched.nats.mean is not None)


def told_spans(block: MatchedLayers) -> list[MatchedSpan]:
    """Spans that are rows: none whose halves tell as much."""
    return [one for one in block.spans if not one.split or (_shown(one) and not any(map(_shown, _within(one, block))))]


def _within(span: MatchedSpan, block: MatchedLayers) -> list[MatchedSpan]:
    low, high = span.reference
    return [one for one in block.spans if one != span and low <= one.reference[0] and one.reference[1] <= high]


def _shown(span: MatchedSpan) -> bool:
    return span.stitched.shown is not False and not span.lost and not is_rounded(span)


def is_rounded(span: MatchedSpan) -> bool:
    """Whether its nats are no more than float32 rounds."""
    nats = span.stitched.nats.mean
    return nats is not None and nats <= ROUNDED


def span_name(span: MatchedSpan) -> str:
    """Its name as a part: the reference's layers, and the candidate's where these have other numbers."""
    ours, theirs = (layers_told(range(first, last + 1)) for first, last in (span.reference, span.candidate))
    return f"matched {ours}" + ("" if ours == theirs else f" (the candidate's {theirs.partition(' ')[2]})")


def _site(span: MatchedSpan, block: MatchedLayers, patient: Patient) -> Site:
    stitched = span.stitched
    nats, share = stitched.nats, Mean(mean=stitched.share, ci=stitched.share_ci)
    if (block.total.mean or 0.0) <= ROUNDED:
        share = Mean(mean=None, ci=None)  # of nothing
    cause, why = _cause(span, nats, share)
    shown = False if is_rounded(span) or span.lost else stitched.shown
    return Site(
        name=span_name(span),
        kind="layer",
        layer=span.reference[0],
        nats=nats.mean or 0.0,
        ci=nats.ci,
        share=share.mean,
        share_ci=share.ci,
        shown=shown,
        control=block.control,
        map_control=stitched.control,
        before=span.before,
        isotropic_ratio=None,
        cause=cause,
        unclear=None if cause != "unclear" else "no_damage_shown" if shown is False else "left_open",
        why="; ".join(filter(None, (why, stitched_told(stitched), _before_told(span)))),
        treatment=_treatment(span, cause, block, patient),
        tokens=block.measured.tokens,
        rung=0,
        classes=span.classes,
    )


def _cause(span: MatchedSpan, nats: Mean, share: Mean) -> tuple[Cause, str]:
    """The class, and why in words. No twin is run between two widths."""
    if is_rounded(span):
        return "negligible", f"its nats are no more than float32 rounds ({numeral(ROUNDED)})"
    if span.lost_in_map:
        return "unclear", "no damage is shown: the map alone loses more than half as much"
    if span.lost_before:
        return "unclear", "no damage is shown: what went wrong before it costs more than a quarter as much"
    ours, theirs = span.added
    if (mild := without_damage(nats, share)) is not None:
        return mild
    if theirs == 0 < ours:
        return "removed", f"it adds nothing to its states, where the reference's adds {numeral(100 * ours)} % of them"
    added = f"it adds {numeral(100 * theirs)} % of its states' size, the reference's {numeral(100 * ours)} %"
    return "unclear", f"{added}, and between two widths no twin is run that would tell more"


def _before_told(span: MatchedSpan) -> str:
    """What the states cost that the map was fitted on, in words."""
    if span.before is None:
        return ""
    border, cost = span.maps_of[1], span.before.mean
    which = f"states that enter its layer {border}" if border else "embeddings"
    told = "leave logits that are not finite" if cost is None else f"cost {numeral(cost)} by themselves"
    return f"the candidate's {which}, carried back, {told}"


def _treatment(span: MatchedSpan, cause: Cause, block: MatchedLayers, patient: Patient) -> Treatment:
    if cause == "negligible":
        return Treatment(recipe=None, why="nothing to treat: what it costs is negligible")
    if span.lost:
        lost = "the map between the widths loses more than half of what this costs"
        if not span.lost_in_map:
            lost = "what went wrong before it costs more than a quarter as much"
        return Treatment(recipe=None, why=f"nothing to treat: no damage is shown, {lost}")
    if span.stitched.shown is False:
        return Treatment(recipe=None, why=waiting(block.measured.tokens, block.measured.documents))
    if not patient.recipe:
        return Treatment(
            recipe=None,
            why="no step of a recipe made it, and repairs, which take the reference's weights, need one width",
        )
    parts = _parts(patient.origin, span)
    return treat(patient, [(part, cause) for part in parts])


def _parts(origin: CheckpointInfo, span: MatchedSpan) -> list[Part]:
    """The candidate's layers, which have the same numbers in its model before the recipe unless a step numbers them
    anew, which `treat` refuses."""
    first, last = span.candidate
    return [part for part in sites_of(origin, range(first, last + 1)) if part.whole]
