"""The interactions of a surface, token class by token class: what adds up in prose may compound in numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from app.kinds.surface.report import SurfaceTokenClass, SurfaceTokenClasses
from workers.diagnosis.surface.slices import judged, sliced
from workers.diagnosis.surface.table import Table
from workers.distributions.significance import holm
from workers.measuring.points.record import PointRecord, WindowSums
from workers.text.token_classes.catalogue import CLASSES, NONE


def token_classes(table: Table, chosen: int, *, check_cancelled: Callable[[], None]) -> SurfaceTokenClasses:
    """Each class of the catalogue that some position is in, and the positions in none; `chosen` is the setting whose KL
    is reported.

    A class in fewer documents than intervals are clustered by has means only. Whether the damages of a class add up on
    average is tested of the others, corrected over them. Raises ValueError where no point is whole.
    """
    whole = [record for record in table.records if record.whole]
    if not whole:
        raise ValueError("no setting is finite at every position")
    there = whole[0].by_class
    present = [one for one in CLASSES if one.name in there]
    slices, p_values = [], []
    for one in present:
        check_cancelled()
        part = _part(table, one.name)
        slices.append(sliced(part, chosen))
        p_values.append(part.average_p_value() if judged(part) else None)
    check_cancelled()
    return SurfaceTokenClasses(
        classes=tuple(
            SurfaceTokenClass(**dict(found), name=one.name, title=one.title, definition=one.definition, average_p=p)
            for one, found, p in zip(present, slices, holm(p_values), strict=True)
        ),
        none=sliced(_part(table, NONE), chosen) if NONE in there else None,
        absent=tuple(one.title for one in CLASSES if one.name not in there),
    )


def _part(table: Table, name: str) -> Table:
    """The same points over the positions of one class alone."""
    return replace(table, records=[_record(record, name) for record in table.records])


def _record(record: PointRecord, name: str) -> PointRecord:
    """A point with the sums of a class in place of those of all positions. Its loss is what it loses beyond the
    reference, whose own is then 0: in I, and in any other difference of settings, the reference's cancels."""
    if not record.whole:
        return record
    own = record.by_class[name]
    sums = WindowSums(
        tokens=tuple(own.tokens_W.tolist()),
        kl=tuple(own.kl_W.tolist()),
        loss=tuple(own.log_ratio_W.tolist()),
        reference_loss=(0.0,) * own.tokens_W.size,
    )
    return record.model_copy(update={"sums": sums})
