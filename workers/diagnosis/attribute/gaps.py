"""The gaps between models of another depth, as parts of a report."""

from __future__ import annotations

from app.contracts.attribute_blocks import LayerAlignment, LayerGap
from app.contracts.attribute_report import Cause, Site, Treatment
from app.contracts.report import Mean
from workers.diagnosis.attribute.cause import is_shown, without_damage
from workers.diagnosis.attribute.found import Found
from workers.diagnosis.attribute.naming import listed
from workers.diagnosis.attribute.putting_back import put_back
from workers.diagnosis.attribute.treatment import Patient, waiting
from workers.distributions.intervals import FEWEST_CLUSTERS


def gap_sites(found: Found) -> tuple[Site, ...]:
    """The gaps of the alignment as parts, where the models differ in depth."""
    alignment = found.internals.alignment if found.internals is not None else None
    if alignment is None:
        return ()
    patient = found.patient()
    made = [_gap(gap, nats, alignment, patient) for gap in alignment.gaps if (nats := _cost(gap)) is not None]
    return tuple(sorted(made, key=lambda site: (-site.nats, site.name)))


def _cost(gap: LayerGap) -> Mean | None:
    """Nats of the reference with the gap or, of layers that fit no model of another width, what the candidate gains
    without it: None where it gains nothing, since these layers do no damage."""
    if gap.nats is not None or gap.saved is None:
        return gap.nats
    return gap.saved if (gap.saved.mean or 0.0) > 0 else None


def _gap(gap: LayerGap, nats: Mean, alignment: LayerAlignment, patient: Patient) -> Site:
    dropped = [one.layer for one in gap.layers if one.kind == "dropped"]
    added = [one.layer for one in gap.layers if one.kind != "dropped"]
    parts = ([f"dropped {listed(dropped)}"] if dropped else []) + ([f"added {listed(added)}"] if added else [])
    kinds = sorted({one.kind for one in gap.layers})
    certain = is_shown(nats)
    own: tuple[Cause, str] = ("removed" if dropped else "inserted", "")
    cause, told = without_damage(nats, Mean(mean=gap.share, ci=gap.share_ci)) or own
    return Site(
        name=", ".join(parts),
        kind="gap",
        layer=gap.at_reference,
        nats=nats.mean or 0.0,
        ci=nats.ci,
        share=gap.share,
        share_ci=gap.share_ci,
        restored=gap.saved,
        shown=certain,
        control=alignment.control,
        isotropic_ratio=None,
        cause=cause,
        unclear="no_damage_shown" if cause == "unclear" else None,
        why="; ".join(filter(None, (" and ".join(kinds), told, _undone(gap), _found_again(gap.stability, alignment)))),
        treatment=_gap_treatment(nats, cause, alignment, put_back(patient, dropped, added, before=gap.at_candidate)),
        tokens=alignment.measured.tokens,
        rung=0,
    )


def _gap_treatment(nats: Mean, cause: Cause, alignment: LayerAlignment, found: Treatment) -> Treatment:
    """What fits a gap that is not negligible, where it is shown to cost anything or has no interval to tell."""
    if (nats.mean or 0.0) <= 0:
        return Treatment(recipe=None, why="nothing to treat: it costs nothing")
    if cause == "negligible":
        return Treatment(recipe=None, why="nothing to treat: what it costs is negligible")
    if cause == "unclear":
        return Treatment(recipe=None, why=waiting(alignment.measured.tokens, alignment.measured.documents))
    return found


def _undone(gap: LayerGap) -> str:
    return "" if gap.nats is not None else "measured as what the candidate gains without it: the widths differ"


def _found_again(stability: float | None, alignment: LayerAlignment) -> str:
    documents = alignment.measured.documents
    if stability is None:
        return f"not resampled, with {documents} document{'' if documents == 1 else 's'}"
    drawn = "documents" if documents >= FEWEST_CLUSTERS else "windows"
    return f"found again in {100 * stability:.0f} % of resamplings of the {drawn}"
