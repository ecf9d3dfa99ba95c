"""The class of a part's damage, from its numbers. The first rule that holds decides; docs/attribute.md shows them.

- negligible: its nats are 0, or the interval of its share ends below a thousandth.
- unclear: the interval of its nats reaches 0: no damage is shown.
- removed: more than 90 % of its weights became 0. Of a gap: layers were dropped.
- inserted: of a gap alone: its layers are all the candidate's own.
- norm, router: the part is one.
- aligned: noise of the same norm costs less, for sure: the error is where the model is sensitive.
- outlier_channels: half of the output error comes from the worst hundredth of input channels.
- low_rank: half of what such noise has outside of its first sixteen directions is in them, too.
- sheltered: noise of the same norm costs more, for sure: the error is in a harmless place.
- size: noise of the same norm costs the same: only a smaller error helps.
- unclear: no twin was run, or its interval says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from app.contracts.report import Mean
from app.kinds.attribute.report import Cause, Evidence, SiteKind
from workers.analysis.numerals import numeral

REMOVED, HALF, NEGLIGIBLE = 0.9, 0.5, 1e-3
# An interval of the ratio wholly beyond one of these is a finding; wholly within the wider pair, it is the same.
ALIGNED, SHELTERED, SAME = 1.25, 0.8, (0.64, 1.5625)
ROUTERS = frozenset({"gate", "shared_expert_gate", "router"})


@dataclass(frozen=True)
class Found:
    """What a cause is derived from. `nats` and `share` of the part swapped into the reference, `ratio` of its
    nats to its twin's."""

    kind: SiteKind
    module: str
    nats: Mean
    share: Mean | None
    ratio: Mean | None
    evidence: Evidence | None


def cause_of(found: Found) -> tuple[Cause, str]:
    """The class, and why in words."""
    return next((cause, why) for holds, cause, why in _rules(found) if holds)


def _rules(found: Found) -> Iterator[tuple[bool, Cause, str]]:
    """Whether each rule holds, in their order; the last one does."""
    yield from _without(found.nats, found.share)
    evidence = found.evidence or Evidence(change=None)
    zeros = evidence.zeros or 0.0
    yield zeros > REMOVED, "removed", f"{_percent(zeros)} of its weights became 0"
    yield found.kind == "norm", "norm", "a norm's weights scale everything that comes after it"
    yield found.module in ROUTERS, "router", "tokens go to other experts"
    ratio, interval = _interval(found.ratio)
    told = f"{numeral(ratio or 0.0)} times what noise of the same norm costs"
    yield interval is not None and interval[0] > ALIGNED, "aligned", told
    outliers, rank = evidence.outlier_share or 0.0, evidence.low_rank_share or 0.0
    noise = evidence.low_rank_noise or 0.0
    yield outliers >= HALF, "outlier_channels", f"{_percent(outliers)} of its output error in 1 % of the channels"
    # of a small module noise holds most in so many directions: halfway between that and all of it
    beside = f", where noise of its shape has {_percent(noise)}" if noise else ""
    yield (
        rank >= noise + HALF * (1 - noise),
        "low_rank",
        f"{_percent(rank)} of its output error in 16 directions{beside}",
    )
    yield ratio is None, "unclear", "no twin was run for it"
    yield interval is not None and interval[1] < SHELTERED, "sheltered", told
    same = interval is not None and interval[0] > SAME[0] and interval[1] < SAME[1]
    yield same, "size", told
    open_ = "there is no interval" if interval is None else "the interval leaves it open"
    yield True, "unclear", f"{told}, and {open_}"


def without_damage(nats: Mean, share: Mean | None) -> tuple[Cause, str] | None:
    """The class, and why in words, of what costs next to nothing or is not shown to cost anything. None if there is
    damage, or no interval."""
    return next(((cause, why) for holds, cause, why in _without(nats, share) if holds), None)


def _without(nats: Mean, share: Mean | None) -> Iterator[tuple[bool, Cause, str]]:
    """The rules that come before all others."""
    yield (nats.mean or 0.0) <= 0, "negligible", "its nats are 0"
    of_it, bounds = _interval(share)
    small = bounds is not None and bounds[1] < NEGLIGIBLE
    yield small, "negligible", f"{numeral(100 * (of_it or 0.0), '.2g')} % of the damage"
    yield is_shown(nats) is False, "unclear", "no damage is shown, the interval of its nats does not lie above 0"


def shown(found: Found) -> bool | None:
    """Whether its cost differs from nothing; None if there is no interval. That of its nats
    decides alone, since they are the damage: with a second and a third way to be shown, what costs nothing would be so
    more often."""
    return is_shown(found.nats)


def is_shown(nats: Mean) -> bool | None:
    """The same of nats alone."""
    return None if nats.ci is None else nats.ci[0] > 0


def _interval(mean: Mean | None) -> tuple[float | None, tuple[float, float] | None]:
    return (None, None) if mean is None else (mean.mean, mean.ci)


def _percent(share: float) -> str:
    """In three digits; what is not all is never told as all."""
    return "over 99.9 %" if 0.9995 <= share < 1 else f"{100 * share:.3g} %"
