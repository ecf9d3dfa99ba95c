"""What a reader of a surface must be warned of."""

from __future__ import annotations

from collections.abc import Iterator

from app.kinds.surface.plan import Cell, zero_of
from workers.analysis.numerals import counted
from workers.diagnosis.surface.table import Table
from workers.distributions.intervals import FEWEST_CLUSTERS


def setting(table: Table, cell: Cell) -> str:
    """`sparsity 0.5 with bits 4`, the order where it is the other one."""
    told = " with ".join(
        f"{axis.knob.field} {axis.label(place)}"
        for axis, place in zip(table.axes, (cell.first, cell.second), strict=True)
    )
    return told + ("" if cell.order == "as given" else ", steps exchanged")


def warnings(table: Table) -> Iterator[str]:
    """What spoils or limits the surface."""
    if table.clusters.by == "windows":
        documents = len(set(table.document_W.tolist()))
        yield (
            f"Only {counted(documents, 'document')}: intervals are clustered by windows, and are too "
            "narrow where windows of one document are alike. More documents make them sound."
        )
    if table.clusters.counts_N.size < FEWEST_CLUSTERS:
        yield (
            f"Too few documents for an interval of how far a knob goes: fewer than {FEWEST_CLUSTERS} windows of text "
            "are at hand. More documents give the limits one."
        )
    broken = [index for index, record in enumerate(table.records) if not record.refused and not record.whole]
    if broken:
        yield (
            f"{_count(broken)} gave logits that are not finite somewhere (first {_first(table, broken)}). What is not "
            "finite is beyond any loss, and is in no interaction."
        )
    refused = [index for index, record in enumerate(table.records) if record.refused]
    if refused:
        why = table.records[refused[0]].refused
        yield f"{_count(refused)} could not be made (first {_first(table, refused)}: {why})."
    if zero_of(table.request) == "first value":
        yield (
            "Both knobs are in one step, which cannot be left out for one of them alone: interactions are counted from "
            "the first value of each."
        )
    yield from _not_rising(table)
    yield from dict.fromkeys(warning for record in table.records for warning in record.warnings)


def _count(indices: list[int]) -> str:
    return "One setting" if len(indices) == 1 else f"{len(indices)} settings"


def _first(table: Table, indices: list[int]) -> str:
    return setting(table, table.cells[indices[0]])


def _not_rising(table: Table) -> Iterator[str]:
    """A knob that, alone, does better where it is turned further: a broken axis spoils what is compared with it."""
    for turned in (0, 1):
        axis = table.axes[turned]
        row = [table.along(turned, 0, place) for place in range(len(axis.values))]
        for place in range(1, len(row)):
            before, after = table.loss_means[row[place - 1]], table.loss_means[row[place]]
            if before.ci and after.ci and after.ci[1] < before.ci[0]:
                yield (
                    f"{axis.knob.field} alone loses less at {axis.label(place)} than at {axis.label(place - 1)}: the "
                    "axis is not one of rising damage, and interactions and limits along it say little."
                )
                break
