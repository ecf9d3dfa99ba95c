"""What a reader of a surface must be warned of."""

from __future__ import annotations

from collections.abc import Iterator

from app.contracts.notice import Notice
from app.contracts.notices import Warned
from app.kinds.surface.notices import SurfaceNotice
from app.kinds.surface.plan import Cell, zero_of
from workers.diagnosis.surface.table import Table
from workers.distributions.intervals import FEWEST_CLUSTERS


def setting(table: Table, cell: Cell) -> str:
    """`sparsity 0.5 with bits 4`, the order where it is the other one."""
    told = " with ".join(
        f"{axis.knob.field} {axis.label(place)}"
        for axis, place in zip(table.axes, (cell.first, cell.second), strict=True)
    )
    return told + ("" if cell.order == "as given" else ", steps exchanged")


def warnings(table: Table) -> Iterator[Notice]:
    """What spoils or limits the surface."""
    if table.clusters.by == "windows":
        documents = len(set(table.document_W.tolist()))
        yield Warned.FEW_DOCUMENTS(documents=documents)
    if table.clusters.counts_N.size < FEWEST_CLUSTERS:
        yield SurfaceNotice.NO_INTERVAL_OF_LIMITS(fewest=FEWEST_CLUSTERS)
    broken = [index for index, record in enumerate(table.records) if not record.refused and not record.whole]
    if broken:
        yield SurfaceNotice.NONFINITE_SETTINGS(settings=len(broken), first=_first(table, broken))
    refused = [index for index, record in enumerate(table.records) if record.refused]
    if refused:
        why = table.records[refused[0]].refused
        yield SurfaceNotice.REFUSED_SETTINGS(settings=len(refused), first=_first(table, refused), why=why)
    if zero_of(table.request) == "first value":
        yield SurfaceNotice.ZERO_IS_FIRST_VALUE()
    yield from _not_rising(table)
    yield from dict.fromkeys(warning for record in table.records for warning in record.warnings)


def _first(table: Table, indices: list[int]) -> str:
    return setting(table, table.cells[indices[0]])


def _not_rising(table: Table) -> Iterator[Notice]:
    """A knob that, alone, does better where it is turned further: a broken axis spoils what is compared with it."""
    for turned in (0, 1):
        axis = table.axes[turned]
        row = [table.along(turned, 0, place) for place in range(len(axis.values))]
        for place in range(1, len(row)):
            before, after = table.loss_means[row[place - 1]], table.loss_means[row[place]]
            if before.ci and after.ci and after.ci[1] < before.ci[0]:
                further, nearer = axis.label(place), axis.label(place - 1)
                yield SurfaceNotice.AXIS_NOT_RISING(knob=axis.knob.field, further=further, before=nearer)
                break
