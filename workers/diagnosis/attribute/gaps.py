"""The gaps between models of another depth, as parts of a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.contracts.report import Mean
from app.kinds.attribute.blocks import LayerAlignment, LayerGap, Stitched
from app.kinds.attribute.report import Cause, Site, Treatment
from workers.diagnosis.attribute.cause import is_shown, without_damage
from workers.diagnosis.attribute.found import Found
from workers.diagnosis.attribute.naming import listed
from workers.diagnosis.attribute.putting_back import put_back
from workers.diagnosis.attribute.treatment import Patient, waiting
from workers.diagnosis.numerals import numeral
from workers.distributions.intervals import FEWEST_CLUSTERS


def gap_sites(found: Found) -> tuple[Site, ...]:
    """The gaps of the alignment as parts, where the models differ in depth."""
    alignment = found.internals.alignment if found.internals is not None else None
    if alignment is None:
        return ()
    patient = found.patient()
    made = [_gap(gap, cost, alignment, patient) for gap in alignment.gaps if (cost := _cost(gap)) is not None]
    return tuple(sorted(made, key=lambda site: (-site.nats, site.name)))


@dataclass(frozen=True)
class _Cost:
    """What a gap costs. `stitched`: through a map between two widths; `how` it was measured, where not in the reference
    as the layers are; `gained`: as what the candidate gains without it."""

    nats: Mean
    share: Mean
    how: str = ""
    stitched: Stitched | None = None
    gained: bool = False


def _cost(gap: LayerGap) -> _Cost | None:
    """Nats of the reference with the gap, as it is or through a map, so that all gaps are ranked by one quantity. Where
    the map shows nothing of added layers: what the candidate gains without them, which needs no map, and None where it
    gains nothing, since they do no damage. None, too, where logits were not finite, so that there are no nats."""
    cost = _measured(gap)
    return None if cost is None or cost.nats.mean is None else cost


def _measured(gap: LayerGap) -> _Cost | None:
    told = Mean(mean=gap.share, ci=gap.share_ci)
    if gap.nats is not None:
        return _Cost(gap.nats, told)
    stitched = gap.stitched
    if gap.saved is not None and (stitched is None or not stitched.shown):
        how = "measured as what the candidate gains without it: the widths differ"
        if stitched is not None:
            how += f", and through a map between them {stitched_told(stitched)}"
        return _Cost(gap.saved, told, how, gained=True) if (gap.saved.mean or 0.0) > 0 else None
    if stitched is None:
        return None
    how = f"measured through a map between the two widths: {stitched_told(stitched)}"
    return _Cost(stitched.nats, Mean(mean=stitched.share, ci=stitched.share_ci), how, stitched)


def stitched_told(stitched: Stitched) -> str:
    """Nats through a map and what the map alone loses, in words."""
    nats, control = stitched.nats.mean, stitched.control.mean
    if nats is None:
        return "logits are not finite"
    alone = "leaves logits that are not finite" if control is None else f"loses {numeral(control)}"
    return f"{numeral(nats)} nats, where the map alone {alone}{', so that they prove nothing' if stitched.lost else ''}"


def gap_name(gap: LayerGap) -> str:
    """Its name as a part."""
    dropped, added = _layers(gap)
    parts = ([f"dropped {listed(dropped)}"] if dropped else []) + ([f"added {listed(added)}"] if added else [])
    return ", ".join(parts)


def _layers(gap: LayerGap) -> tuple[list[int], list[int]]:
    """Those that were dropped, and those that were added."""
    return (
        [one.layer for one in gap.layers if one.kind == "dropped"],
        [one.layer for one in gap.layers if one.kind != "dropped"],
    )


def _gap(gap: LayerGap, cost: _Cost, alignment: LayerAlignment, patient: Patient) -> Site:
    nats, share = cost.nats, cost.share
    dropped, added = _layers(gap)
    kinds = sorted({one.kind for one in gap.layers})
    certain = is_shown(nats) if cost.stitched is None else cost.stitched.shown
    own: tuple[Cause, str] = ("removed" if dropped else "inserted", "")
    cause, told = without_damage(nats, share) or own
    if cost.stitched is not None and cost.stitched.lost:
        cause, told = "unclear", ""  # `how` says why, and no small number is one of these layers
    return Site(
        name=gap_name(gap),
        kind="gap",
        layer=gap.at_reference,
        nats=nats.mean or 0.0,
        ci=nats.ci,
        share=share.mean,
        share_ci=share.ci,
        restored=gap.saved,
        shown=certain,
        control=alignment.control,
        map_control=None if cost.stitched is None else cost.stitched.control,
        isotropic_ratio=None,
        cause=cause,
        unclear="no_damage_shown" if cause == "unclear" else None,
        why="; ".join(filter(None, (_kinds(kinds, cause), told, cost.how, _found_again(gap.stability, alignment)))),
        treatment=_gap_treatment(cost, cause, alignment, put_back(patient, dropped, added, before=gap.at_candidate)),
        tokens=alignment.measured.tokens,
        rung=0,
        classes=() if cost.gained else gap.classes,
    )


def _kinds(kinds: Sequence[str], cause: Cause) -> str:
    """What the layers are, where the cause does not say it."""
    return "" if kinds == [cause] else " and ".join(kinds)


def _gap_treatment(cost: _Cost, cause: Cause, alignment: LayerAlignment, found: Treatment) -> Treatment:
    """What fits a gap that is not negligible, where it is shown to cost anything or has no interval to tell."""
    if (cost.nats.mean or 0.0) <= 0:
        return Treatment(recipe=None, why="nothing to treat: it costs nothing")
    if cause == "negligible":
        return Treatment(recipe=None, why="nothing to treat: what it costs is negligible")
    if cost.stitched is not None and cost.stitched.lost:
        lost = "the map between the widths loses no less than this gap costs"
        return Treatment(recipe=None, why=f"nothing to treat: no damage is shown, {lost}")
    if cause == "unclear":
        return Treatment(recipe=None, why=waiting(alignment.measured.tokens, alignment.measured.documents))
    return found


def _found_again(stability: float | None, alignment: LayerAlignment) -> str:
    documents = alignment.measured.documents
    if stability is None:
        return f"not resampled, with {documents} document{'' if documents == 1 else 's'}"
    drawn = "documents" if documents >= FEWEST_CLUSTERS else "windows"
    return f"found again in {100 * stability:.0f} % of resamplings of the {drawn}"
