"""The verdict: which class of damage, how sure, by which rule, and what it does not speak of.

The measure is the excess: mean KL(reference‖candidate) over the scored positions minus the noise floor at the same
positions. A class begins where the excess reaches its threshold. The 95 % interval decides: a threshold at or below its
lower limit is reached, one above its upper limit is not. One in between is undecided. The verdict then names every
class that the interval touches, is inconclusive, and takes the worst of them as its severity. A model that was measured
too little is not given the benefit of the doubt; more text only ever narrows that.

docs/verdict.md shows where the default thresholds come from.
"""

import math

import numpy as np

from app.contracts.report import SEVERITIES, Mean, Severity, SeverityVerdict
from app.contracts.request import Thresholds
from workers.analysis.numerals import numeral
from workers.distributions.intervals import Estimate
from workers.distributions.power import minimum_detectable_effect, tokens_to_decide
from workers.measuring.summary import as_mean

# The excess is a difference of two measurements that round independently.
_PAIR = math.sqrt(2)


def decide(
    excess: Estimate | None, thresholds: Thresholds, *, nonfinite: int = 0, floor: Estimate | None = None
) -> SeverityVerdict:
    """The class of an excess KL.

    `excess` is None if no position is finite. `nonfinite` counts positions whose logits are not: a single one makes
    it `collapse`. `floor` is the noise floor as it was measured, None if only its size is known.
    """
    limits = _limits(thresholds)
    if nonfinite or excess is None:
        classes: tuple[Severity, ...] = ("collapse",)
        severity: Severity = "collapse"
        conclusive = True
    elif excess.interval is None:
        classes, severity, conclusive = SEVERITIES, _class(excess.mean, limits), False
    else:
        low, high = (SEVERITIES.index(_class(limit, limits)) for limit in excess.interval)
        classes = SEVERITIES[low : high + 1]
        severity, conclusive = classes[-1], len(classes) == 1
    spread = None if excess is None else excess.standard_error
    needed = None
    if not conclusive and excess is not None and excess.interval is not None:
        needed = tokens_to_decide(excess.tokens, excess.mean, excess.interval, limits)
    return SeverityVerdict(
        severity=severity,
        classes=classes,
        conclusive=conclusive,
        rule=rule(thresholds),
        thresholds=thresholds,
        excess_kl=as_mean(excess),
        minimum_detectable_effect=(
            None if excess is None or spread is None else minimum_detectable_effect(spread, excess.clusters)
        ),
        smallest_detectable_excess=(
            None
            if floor is None or floor.standard_error is None
            else minimum_detectable_effect(_PAIR * floor.standard_error, floor.clusters)
        ),
        tokens_to_decide=needed,
    )


def rule(thresholds: Thresholds) -> str:
    """The rule in words, with its numbers."""
    begins = ", ".join(
        f"{name} {_plain(limit)}" for name, limit in zip(SEVERITIES[1:], _limits(thresholds), strict=True)
    )
    return (
        "The measure is the excess: mean KL(reference‖candidate) over the scored positions minus the noise floor at "
        f"the same positions, in nats per token, with its 95 % interval. Classes begin at {begins}; below the first "
        "there is none. A class is reached when the lower end of the interval is at or above its limit, and "
        "ruled out when the upper end is below it. If the interval crosses a limit, the verdict is inconclusive: it "
        "names every class that the interval touches, and the severity is the worst of them. A position whose logits "
        "are not finite makes it collapse."
    )


def sentence(
    verdict: SeverityVerdict,
    *,
    tokens: int,
    nonfinite: int = 0,
    floor: float | None = 0.0,
    top1_agreement: Mean | None = None,
    perplexity_ratio: Mean | None = None,
) -> str:
    """The verdict in plain words. `tokens` are the scored positions, `floor` the mean noise floor in nats."""
    excess = verdict.excess_kl
    if nonfinite or excess.mean is None:
        return (
            f"Collapse: at {_count(nonfinite)} of {_count(tokens)} scored positions the logits are not finite numbers, "
            "so the candidate gives no distribution there."
        )
    if excess.mean == 0 and excess.ci == (0.0, 0.0):
        return (
            f"No damage: at all {_count(tokens)} scored positions the candidate's distribution equals the reference's."
        )
    beyond = f" beyond the noise floor of {_plain(floor)}" if floor else ""
    if excess.ci is None:
        return (
            f"Inconclusive: the candidate loses {_digits(excess.mean, 2)} nats per token{beyond}, but one window of "
            "text leaves no interval; score more text."
        )
    loss = f"the candidate loses {_interval(excess.mean, excess.ci)} nats per token{beyond}"
    if not verdict.conclusive:
        return f"Inconclusive, {_between(verdict.classes)}: {loss}, {_undecided(verdict)}."
    rank = SEVERITIES.index(verdict.severity)
    limits = _limits(verdict.thresholds)
    head = verdict.severity.capitalize() if rank else "No damage that matters"
    place = f"above the limit of {_plain(limits[rank - 1])}" if rank else f"below the limit of {_plain(limits[0])}"
    return f"{head}: {loss}, {place}{_effects(top1_agreement, perplexity_ratio)}."


def _limits(thresholds: Thresholds) -> tuple[float, ...]:
    return (thresholds.mild, thresholds.moderate, thresholds.severe, thresholds.collapse)


def _class(value: float, limits: tuple[float, ...]) -> Severity:
    """The class that begins at the highest limit that `value` reaches."""
    return SEVERITIES[sum(limit <= value for limit in limits)]


def _undecided(verdict: SeverityVerdict) -> str:
    """Which limits lie in the interval, and what would decide."""
    first, last = (SEVERITIES.index(verdict.classes[end]) for end in (0, -1))
    inside = [_plain(limit) for limit in _limits(verdict.thresholds)[first:last]]
    straddled = f"which straddles the limit{'s' if len(inside) > 1 else ''} of {_listed(inside)}"
    if verdict.about_tokens_to_decide is None:
        return f"{straddled}, and is so close to it that no amount of text would decide"
    return f"{straddled}; about {_count(verdict.about_tokens_to_decide)} scored tokens would decide"


def _effects(top1: Mean | None, ratio: Mean | None) -> str:
    """What the loss looks like from outside."""
    parts = []
    if top1 is not None and top1.mean is not None:
        parts.append(f"its first choice of token differs at {_percent(1 - top1.mean)} of positions")
    if ratio is not None and ratio.mean is not None and f"{ratio.mean:.2f}" != "1.00":
        parts.append(f"its perplexity is {_digits(ratio.mean, 3)} times the reference's")
    told = " and ".join(parts)
    return f". {told[0].upper()}{told[1:]}" if parts else ""


def _between(classes: tuple[Severity, ...]) -> str:
    return (
        f"between {classes[0]} and {classes[-1]}"
        if len(classes) == 2
        else f"anything from {classes[0]} to {classes[-1]}"
    )


def _listed(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _interval(mean: float, ci: tuple[float, float]) -> str:
    """A mean and its interval, with the decimals that the interval's width warrants, two significant ones at least."""
    width = ci[1] - ci[0]
    places = [1 - _magnitude(abs(mean))] if mean else []
    places += [-_magnitude(width)] if width > 0 else []
    decimals = min(max([0, *places]), 12)
    value, low, high = (numeral(number, f".{decimals}f") for number in (mean, *ci))
    return f"{value} (95 % interval {low} to {high})"


def _magnitude(value: float) -> int:
    return math.floor(math.log10(value))


def _digits(value: float, significant: int) -> str:
    """A number of so many significant digits; from a billion on by its power of ten."""
    if value == 0:
        return "0"
    if abs(value) >= 1e9:
        return numeral(value, f".{significant}g")
    return numeral(value, f",.{max(0, significant - 1 - _magnitude(abs(value)))}f")


def _plain(value: float) -> str:
    """A number as short as it can be written, never with an exponent."""
    return np.format_float_positional(float(f"{value:.3g}"), trim="-")


def _percent(share: float) -> str:
    return "0 %" if share <= 0 else f"{_digits(100 * share, 2 if share >= 0.01 else 1)} %"


def _count(number: int) -> str:
    return f"{number:,}"
