"""Names, notes and sentences of a surface report, and what its charts and tables look up."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import Final

from app.contracts.report import Mean
from app.kinds.surface.report import Interaction, OrderEffect, SurfaceKnob, SurfacePoint, SurfaceReport
from app.reports import format as fmt
from app.reports.untrusted import visible

MEASURES: Final = {"kl": "KL(p‖q)", "perplexity_ratio": "perplexity ratio q/p", "perplexity": "perplexity"}
UNITS: Final = {"kl": " nats per token", "perplexity_ratio": "", "perplexity": ""}
# A p-value below shows a difference.
SHOWN: Final = 0.05
# Settings that a sentence names one by one.
_MOST_NAMED: Final = 3
# Kinds of interactions that are not 0 for sure.
DEPARTURES: Final = frozenset({"compounds", "overlaps"})
NONE_SHOWN: Final = "no changed setting is within the loss for sure, the mildest is chosen"


def heading(report: SurfaceReport) -> str:
    """Whether the damages add up, in the order of the steps as given. Where the settings do not all say the same, or
    most say nothing, it shows how many do."""
    kinds = Counter(row.kind for row in report.interactions if row.order == "as given")
    count, decided = kinds.total(), kinds.total() - kinds["no_departure_shown"]
    if not count:
        return "Not known"
    if kinds["compounds"] and kinds["overlaps"]:
        return f"Mixed: they compound at {kinds['compounds']} and overlap at {kinds['overlaps']} of {count} settings"
    departing, verb = kinds["compounds"] + kinds["overlaps"], "compound" if kinds["compounds"] else "overlap"
    if departing:
        everywhere = departing == decided and 2 * departing > count
        return f"They {verb}" if everywhere else f"They {verb} at {departing} of {count} settings"
    if kinds["additive_within_margin"] == count:
        return f"They add up within {fmt.short(report.margin or 0.0)} nats"
    return "No departure from adding up shown"


def answer(report: SurfaceReport) -> str:
    """The heading, and that nothing is recommended where that is so."""
    return heading(report) if report.chosen.within else f"{heading(report)}; {NONE_SHOWN}"


def sentence(report: SurfaceReport) -> str:
    """Whether the damages add up, and the smallest model within the chosen loss."""
    given = [row for row in report.interactions if row.order == "as given"]
    if not given:
        return f"Whether the two damages add up is not known: no setting of both is finite. {outcome(report)}"
    most = max(given, key=lambda row: abs(row.nats.mean or 0.0))
    nats = fmt.estimate(most.nats.mean, most.nats.ci)
    where = setting(report, most.first, most.second)
    return f"{heading(report)}; the largest interaction is {nats} nats per token at {where}. {outcome(report)}"


def told_of(report: SurfaceReport) -> str:
    """What the setting is called that the common blocks speak of."""
    return "chosen setting" if report.chosen.within else "mildest setting"


def kind_text(row: Interaction, margin: float | None) -> str:
    """What is reported of an interaction."""
    if row.kind in DEPARTURES:
        return row.kind
    return "no departure shown" if row.kind == "no_departure_shown" else f"adds up within {fmt.short(margin or 0.0)}"


def name(report: SurfaceReport, which: int) -> str:
    """A knob's field, with its step's type where both knobs have that field."""
    one, other = report.knobs
    knob = report.knobs[which]
    return visible(f"{knob.type} {knob.field}" if one.field == other.field else knob.field)


def label(report: SurfaceReport, which: int, place: int) -> str:
    """A knob's setting in a few characters."""
    knob = report.knobs[which]
    return "left out" if place == 0 and report.zero == "left out" else _value(knob, place)


def _value(knob: SurfaceKnob, place: int) -> str:
    value = knob.values[place]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return visible(value if isinstance(value, str) else json.dumps(value))
    return fmt.short(value)


def number_at(report: SurfaceReport, which: int, place: float) -> float | None:
    """A knob's number at a place along its values, linear between two settings; None if one of them is none."""
    low, high = math.floor(place), math.ceil(place)
    one, other = (_number(report, which, end) for end in (low, high))
    return None if one is None or other is None else one + (place - low) * (other - one)


def _number(report: SurfaceReport, which: int, place: int) -> float | None:
    knob = report.knobs[which]
    value = knob.zero if place == 0 and report.zero == "left out" else knob.values[place]
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def knobs_of(report: SurfaceReport) -> str:
    """`sparsity × bits`."""
    return " × ".join(name(report, which) for which in (0, 1))


def setting(report: SurfaceReport, first: int, second: int, order: str = "as given") -> str:
    """`sparsity 0.5, bits 4`."""
    told = ", ".join(
        f"{name(report, which)} {label(report, which, place)}" for which, place in ((0, first), (1, second))
    )
    return told if order == "as given" else f"{told}, steps exchanged"


def level(report: SurfaceReport) -> str:
    """The chosen loss with its unit."""
    return f"{fmt.short(report.contour.level)}{UNITS[report.contour.measure]}"


def outcome(report: SurfaceReport) -> str:
    """What to take."""
    chosen = report.chosen
    where = _sentence(setting(report, chosen.first, chosen.second, chosen.order))
    if not chosen.within:
        return f"{_none_shown(report)} {where} loses least of them. Nothing is recommended."
    unmodified = next((one for one in report.points if not one.recipe), None)
    size, whole = (None if one is None else _bytes(report, one) for one in (chosen_point(report), unmodified))
    more = " It takes no less than the unmodified model." if size and whole and size >= whole else ""
    return (
        f"{where} is the smallest changed setting within {level(report)} for sure: "
        f"{size_of(report, chosen_point(report))}.{more} Its recipe is ready for compare and deploy."
    )


def _none_shown(report: SurfaceReport) -> str:
    within = Counter(one.within for one in report.points if one.recipe and not one.refused)
    undecided, count = within["undecided"], within.total()
    if not undecided:
        rest = "all are beyond it"
    elif undecided == count:
        rest = "all are undecided"
    else:
        rest = f"{undecided} of {count} {'is' if undecided == 1 else 'are'} undecided, the others beyond it"
    return f"No changed setting is shown to be within {level(report)}: {rest}."


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def left(report: SurfaceReport) -> str:
    """The sentence of the verdict's section: what the chosen setting loses, or the mildest where none is chosen."""
    kl = fmt.estimate(report.divergence.kl.mean, report.divergence.kl.ci)
    where = setting(report, report.chosen.first, report.chosen.second, report.chosen.order)
    return f"The {told_of(report)} ({where}) loses {kl} nats per token."


def limits_note(report: SurfaceReport) -> str:
    """How the limits were found."""
    by_kl = report.contour.measure == "kl"
    between = (
        "in the logarithm of KL, but straight in KL from a setting that loses nothing or next to nothing. Limits from "
        "there and limits beside them do not follow one rule"
        if by_kl
        else "straight in ln perplexity"
    )
    # Of a logarithm alone: what it says of next to nothing.
    nothing = "next to a setting that loses next to nothing, though not exactly 0, " if by_kl else ""
    drawn = "windows" if report.divergence.kl.clusters == "windows" else "documents"
    return (
        "A limit is where the loss first passes the chosen one on the way from the mildest setting. It is "
        f"interpolated between neighbours {between}. Its 95 % interval comes from {drawn} resampled jointly at all "
        "settings. It holds every setting whose own interval holds the chosen loss, up to the first one that is beyond "
        "it for sure. It also holds what was not measured between two of them. Damage of sparsity, ratios, bits and "
        "ranks grows ever faster: of these, it reaches from where a straight line would pass to the stronger setting. "
        "Of any other knob, from a step left out that has no number on the knob’s axis (a rank’s), "
        f"{nothing}and before a collapse, it is the whole gap. “Beyond” means past the last measured setting, “already "
        "passed” that the mildest setting is beyond the chosen loss. If the one behind the furthest within gives no "
        "finite logits or cannot be made, the limit is that furthest one. If the mildest one is so, it is the limit. "
        "The last column goes by the mean. It also names the furthest that is within for sure, if that is another one: "
        "by the upper end of its interval, as any choice is made."
    )


def interactions_note(report: SurfaceReport) -> str:
    """What an interaction is."""
    zero = "left out" if report.zero == "left out" else "at its first value"
    return (
        "I = ln PPL(p,q) − ln PPL(p,0) − ln PPL(0,q) + ln PPL(0,0), nats per token, paired by token; 0 means the "
        f"knob {zero}. Above 0 each damage makes the other worse, below 0 they overlap. A setting compounds or "
        f"overlaps where p, after Holm’s correction over all of them, is below 0.05{_margin(report)}. Where one axis "
        "is broken by itself, what it does with the other says little."
    )


def _margin(report: SurfaceReport) -> str:
    if report.margin is None:
        return ""
    return (
        f", and else to add up where its whole interval is within ±{fmt.short(report.margin)} nats; where it does "
        "not, no departure is shown and none is ruled out"
    )


def path_note(report: SurfaceReport) -> str:
    """What the path is."""
    counted = (
        "with zeros of pruned weights not stored (one bit a weight says where they are), which few kernels run from"
        if report.storage == "sparse"
        else "with zeros stored like other weights, so that pruning saves nothing"
    )
    return (
        "From the largest to the smallest: no other measured setting takes as few bytes and loses as little; what "
        f"saves less than a thousandth of the bytes is no step. Bytes are counted {counted}. Neighbours whose "
        "intervals overlap may stand in another order on other text."
    )


def orders_note(report: SurfaceReport) -> str:
    """Which orders exist."""
    if report.zero == "first value":
        return "Both knobs are in one step: there is no other order."
    if len(report.orders) == 1:
        return "Only the order of the steps as given was measured; `orders: both` measures the other one, too."
    if not report.order_effects:
        return "No setting of both orders is finite at every position."
    by_measure = {
        "ln PPL": [(row, row.log_perplexity, row.p) for row in report.order_effects],
        "KL": [(row, row.kl, row.p_kl) for row in report.order_effects],
    }
    count, told = len(report.order_effects), []
    for measure, rows in by_measure.items():
        sure = [(row, mean) for row, mean, p in rows if p is not None and p < SHOWN]
        better = sum((mean.mean or 0.0) < 0 for _, mean in sure)
        if sure:
            told.append(
                f"in {measure} at {len(sure)} of {count} settings (better at {better}, worse at {len(sure) - better}), "
                f"{_largest_effects(report, sure)}"
            )
    if not told:
        none = "At the one setting no difference" if count == 1 else f"At none of the {count} settings is a difference"
        return f"{none} between the two orders {'is ' if count == 1 else ''}shown."
    return (
        f"Exchanging the two steps makes a difference {' and '.join(told)}, by Holm’s correction of each measure at "
        "the 5 % level. Below 0 the exchanged order loses less."
    )


def _largest_effects(report: SurfaceReport, sure: Sequence[tuple[OrderEffect, Mean]]) -> str:
    """Each setting with its difference; of more than three the one of the largest."""
    ranked = sorted(sure, key=lambda one: -abs(one[1].mean or 0.0))
    named = ranked if len(ranked) <= _MOST_NAMED else ranked[:1]
    told = [
        f"{setting(report, row.first, row.second)} ({fmt.estimate(mean.mean, mean.ci)} nats per token)"
        for row, mean in named
    ]
    return f"{'at' if len(named) == len(ranked) else 'most at'} {'; '.join(told)}"


def chosen_point(report: SurfaceReport) -> SurfacePoint:
    """The chosen setting."""
    chosen = report.chosen
    return point_at(report, chosen.first, chosen.second, chosen.order)


def point_at(report: SurfaceReport, first: int, second: int, order: str = "as given") -> SurfacePoint:
    """A setting of an order. Raises StopIteration if it was not measured."""
    return next(one for one in report.points if (one.first, one.second, one.order) == (first, second, order))


def point_along(report: SurfaceReport, which: int, at: int, place: int) -> SurfacePoint | None:
    """The setting in the order as given where one knob is at `place` and the other at `at`; None: not measured."""
    first, second = (place, at) if which == 0 else (at, place)
    found = (one for one in report.points if (one.first, one.second, one.order) == (first, second, "as given"))
    return next(found, None)


def size_of(report: SurfaceReport, point: SurfacePoint) -> str:
    """A setting's bytes as the report counts them."""
    size = _bytes(report, point)
    return fmt.NONE if size is None else fmt.size(size)


def _bytes(report: SurfaceReport, point: SurfacePoint) -> int | None:
    return point.sparse_bytes if report.storage == "sparse" else point.bytes


def loss_nats(report: SurfaceReport, loss: Mean) -> float | None:
    """A loss as nats beyond nothing, by which it is coloured."""
    if loss.mean is None:
        return None
    if report.contour.measure == "kl":
        return loss.mean
    if report.contour.measure == "perplexity_ratio":
        return math.log(loss.mean) if loss.mean > 0 else 0.0
    reference = report.perplexity.reference or 1.0
    return math.log(loss.mean / reference) if loss.mean > 0 else 0.0
