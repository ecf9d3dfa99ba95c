"""The gaps between models of another depth, as parts of a report."""

from __future__ import annotations

from collections.abc import Sequence

from app.contracts.report import Mean
from app.kinds.attribute.blocks import LayerAlignment, LayerGap
from app.kinds.attribute.report import Cause, Site, Treatment
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
    # logits that are not finite have no nats
    made = [_gap(gap, alignment, patient) for gap in alignment.gaps if gap.nats.mean is not None]
    return tuple(sorted(made, key=lambda site: (-site.nats, site.name)))


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


def _gap(gap: LayerGap, alignment: LayerAlignment, patient: Patient) -> Site:
    nats, share = gap.nats, Mean(mean=gap.share, ci=gap.share_ci)
    dropped, added = _layers(gap)
    kinds = sorted({one.kind for one in gap.layers})
    own: tuple[Cause, str] = ("removed" if dropped else "inserted", "")
    cause, told = without_damage(nats, share) or own
    return Site(
        name=gap_name(gap),
        kind="gap",
        layer=gap.at_reference,
        nats=nats.mean or 0.0,
        ci=nats.ci,
        share=share.mean,
        share_ci=share.ci,
        restored=gap.saved,
        shown=is_shown(nats),
        control=alignment.control,
        isotropic_ratio=None,
        cause=cause,
        unclear="no_damage_shown" if cause == "unclear" else None,
        why="; ".join(filter(None, (_kinds(kinds, cause), told, _found_again(gap.stability, alignment)))),
        treatment=_gap_treatment(nats, cause, alignment, put_back(patient, dropped, added, before=gap.at_candidate)),
        tokens=alignment.measured.tokens,
        rung=0,
        classes=gap.classes,
    )


def _kinds(kinds: Sequence[str], cause: Cause) -> str:
    """What the layers are, where the cause does not say it."""
    return "" if kinds == [cause] else " and ".join(kinds)


def _gap_treatment(nats: Mean, cause: Cause, alignment: LayerAlignment, found: Treatment) -> Treatment:
    """What fits a gap that is not negligible, where it is shown to cost anything or has no interval to tell."""
    if (nats.mean or 0.0) <= 0:
        return Treatment(recipe=None, why="nothing to treat: it costs nothing")
    if cause == "negligible":
        return Treatment(recipe=None, why="nothing to treat: what it costs is negligible")
    if cause == "unclear":
        return Treatment(recipe=None, why=waiting(alignment.measured.tokens, alignment.measured.documents))
    return found


def _found_again(stability: float | None, alignment: LayerAlignment) -> str:
    documents = alignment.measured.documents
    if stability is None:
        return f"not resampled, with {documents} document{'' if documents == 1 else 's'}"
    drawn = "documents" if documents >= FEWEST_CLUSTERS else "windows"
    return f"found again in {100 * stability:.0f} % of resamplings of the {drawn}"
