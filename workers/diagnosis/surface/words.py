"""What a surface says in one sentence, and what a reader must be warned of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from app.kinds.surface.plan import Cell, zero_of
from app.kinds.surface.report import Interaction
from workers.analysis.numerals import counted, numeral
from workers.diagnosis.surface.table import Table
from workers.distributions.intervals import FEWEST_CLUSTERS

# Settings that a sentence names one by one.
_MOST_NAMED: Final = 3
_NAMES = {"kl": "KL", "perplexity_ratio": "perplexity ratio", "perplexity": "perplexity"}


def setting(table: Table, cell: Cell | Interaction) -> str:
    """`sparsity 0.5 with bits 4`, the order where it is the other one."""
    told = " with ".join(
        f"{axis.knob.field} {axis.label(place)}"
        for axis, place in zip(table.axes, (cell.first, cell.second), strict=True)
    )
    return told + ("" if cell.order == "as given" else ", steps exchanged")


def sentence(table: Table, interactions: tuple[Interaction, ...], chosen: int) -> str:
    """Do they add up, and what is the smallest model within the loss."""
    return f"{_together(table, interactions)}; {_smallest(table, chosen)}."


def _together(table: Table, interactions: tuple[Interaction, ...]) -> str:
    """Of the order that was asked for; the exchanged one is apart."""
    given = tuple(one for one in interactions if one.order == "as given")
    exchanged = tuple(one for one in interactions if one.order == "reversed")
    if not given:
        return "Whether the two damages add up is not known: no setting of both is finite at every position"
    told = _in_given_order(table, given)
    if not exchanged:
        return told
    none = f"are not shown to depart from adding up at {'any of ' if len(exchanged) > 1 else ''}{_the(exchanged)}"
    return f"{told}; with the two steps exchanged they {_departing(table, exchanged) or none}"


def _the(interactions: Sequence[Interaction]) -> str:
    return "the one setting" if len(interactions) == 1 else f"the {len(interactions)} settings"


def _departing(table: Table, interactions: tuple[Interaction, ...]) -> str:
    """`compound at 2 of 8 settings, most at …, and overlap at …`; empty where none departs."""
    parts = []
    for kind, verb in (("compounds", "compound"), ("overlaps", "overlap")):
        found = [one for one in interactions if one.kind == kind]
        if found:
            most = max(found, key=lambda one: abs(one.nats.mean or 0.0))
            where = (
                f"{len(found)} of {len(interactions)} settings, most at"
                if len(interactions) > 1
                else "the one setting,"
            )
            parts.append(f"{verb} at {where} {setting(table, most)} ({_mean(most)} nats per token)")
    return ", and ".join(parts)


def _in_given_order(table: Table, interactions: tuple[Interaction, ...]) -> str:
    margin = f"{table.request.additive_margin:.3g} nats per token"
    inside = [one for one in interactions if one.kind == "additive_within_margin"]
    departing = _departing(table, interactions)
    if departing:
        return f"The two damages {departing}{_elsewhere(interactions, inside, margin)}"
    largest = max(interactions, key=lambda one: abs(one.nats.mean or 0.0))
    tested = "" if largest.p is None else f", p = {numeral(largest.p, '.2g')} after Holm's correction,"
    told = f"the largest interaction is {_mean(largest)} nats per token{tested} at {setting(table, largest)}"
    if len(inside) == len(interactions):
        count = "at the one setting" if len(inside) == 1 else f"at all {len(inside)} settings"
        return f"The two damages add up within {margin} {count}: {told}"
    if len(interactions) == 1:
        return f"At the one setting no departure from adding up is shown, and none is ruled out; {told}"
    where = f"at {_counted(table, inside)} the damages" if inside else "at none of them do the damages"
    return (
        f"At none of the {len(interactions)} settings is a departure from adding up shown; "
        f"{where} add up within {margin} for sure; {told}"
    )


def _elsewhere(interactions: Sequence[Interaction], inside: Sequence[Interaction], margin: str) -> str:
    """What is known of the settings that do not depart; empty where all do."""
    unknown = sum(one.kind == "no_departure_shown" for one in interactions)
    parts = [f"at {_settings(len(inside))} they add up within {margin} for sure"] if inside else []
    parts += [f"at {_settings(unknown)} no departure is shown, and none is ruled out"] if unknown else []
    return "".join(f"; {part}" for part in parts)


def _settings(count: int) -> str:
    return "one setting" if count == 1 else f"{count} settings"


def _counted(table: Table, found: Sequence[Interaction]) -> str:
    """`2 of them (sparsity 0.1 with bits 8; sparsity 0.3 with bits 8)`: each is named, up to three."""
    named = "; ".join(setting(table, one) for one in found[:_MOST_NAMED])
    more = len(found) - _MOST_NAMED
    return f"{len(found)} of them ({named}{f'; and {more} more' if more > 0 else ''})"


def _mean(one: Interaction) -> str:
    mean, ci = one.nats.mean or 0.0, one.nats.ci
    interval = f"95 % interval {numeral(ci[0])} to {numeral(ci[1])}" if ci else "no interval"
    return f"{numeral(mean, '+.3g')}, {interval}"


def _smallest(table: Table, chosen: int) -> str:
    loss, measure = table.loss_means[chosen], _NAMES[table.request.contour.measure]
    level = f"{measure} of {numeral(table.request.level, '.4g')}" + (" nats per token" if measure == "KL" else "")
    told = "not finite" if loss.mean is None else numeral(loss.mean, "#.3g")
    interval = f", {numeral(loss.ci[0], '#.3g')} to {numeral(loss.ci[1], '#.3g')}" if loss.ci else ""
    where = f"{setting(table, table.cells[chosen])} ({table.bytes(chosen) / 2**20:.4g} MiB, {measure} {told}"
    if table.within(chosen) == "yes":
        more = "" if table.spares(chosen) else ", no smaller than the unmodified model"
        return f"the smallest changed setting that is within a {level} for sure is {where}{interval}){more}"
    return f"no changed setting is shown to be within a {level}, and {where}{interval}) loses least of them"


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
