"""The answer to "how far can this knob be turned": the published form's knee, how sure it is, and whether there is one.

`s0`, `params` and `log_sse` are always those of the published form, so that curves can be compared with the publication
and with each other. Whether to believe them is reported beside them:

- *no transition in range*: The sum of squares drops from a power law, an exponential or a line in y to the published
  form. A curve without transition gives that drop, too (level 2 %). No other form shows a transition that the published
  form misses.
- *not identifiable*: There are no more points than free coefficients, so whether there is a transition cannot be known.
  Or there is one, but the published form does not say where, for one of these reasons:
  - a rival shows it and the published form does not follow it (`missed`);
  - a side of the knee has no more points than coefficients, so the place of the knee is arithmetic and not evidence;
  - the interval reaches an end of the measured range or a bound of s0;
  - the interval is wider than half of the searched range, so measuring did not even halve what was known before;
  - the documents are so few that what they share may have bent the curve;
  - there are too few points for an AICc of the published form;
  - the measured curve is flatter beyond the knee than up to it.
- *transition*: neither.

`form` is the form that describes the curve best of those that have an AICc, which may be a rival. If a form has none
for want of points, that is no choice among all. If there is no transition, it is one of the forms without.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

from workers.analysis.numerals import numeral
from workers.analysis.threshold import published
from workers.analysis.threshold.bounds import NAMES, Bounds
from workers.analysis.threshold.curve import Curve
from workers.analysis.threshold.documents import DocumentLosses, document_interval
from workers.analysis.threshold.evidence import TransitionTest, lack_of_fit, transition_test
from workers.analysis.threshold.formfree import NEAR_LOSSLESS, LimitPoint, near_lossless, slopes
from workers.analysis.threshold.forms import Form
from workers.analysis.threshold.interval import CONFIDENCE, KneeInterval, knee_interval
from workers.analysis.threshold.line import LineForm
from workers.analysis.threshold.missed import Missed, missed_transition
from workers.analysis.threshold.offset import PublishedWithOffset
from workers.analysis.threshold.rivals import BrokenLine, Exponential, Logistic, PowerLaw
from workers.analysis.threshold.selection import Candidate, candidate, choose

Answer = Literal["transition", "no transition in range", "not identifiable"]
Resampled = Literal["residuals", "documents"]

TRANSITION_LEVEL = 0.02
WIDEST = 0.5
# With fewer, what documents share hides one knee in five of those that are there, and more.
FEW_DOCUMENTS = 20
_LACK_OF_FIT_LEVEL = 0.05
_FALLING_LEVEL = 0.01
_NEAR = 1e-9
_PLACES = ("s0", "knee", "midpoint")
# Of ln y. Where the points are too few to test, a straight form represents a curve that it is nowhere farther from.
_FAR = 0.1
_WORDS = {
    published.NAME: "the published form",
    PowerLaw.name: "a power law",
    Exponential.name: "an exponential",
    Logistic.name: "a logistic curve",
    BrokenLine.name: "a broken line",
    LineForm.name: "a straight line through y itself",
    PublishedWithOffset.name: "the published form over the dense value",
}

# The code and the facts of a notice: `ThresholdNotice` of `app.contracts.notices` has the words.
Warned = tuple[str, dict[str, float | str]]


@dataclass(frozen=True)
class ThresholdAnswer:
    """All that is reported about one curve; `reasons` tell why it is not a transition, `warnings` what to keep in
    mind."""

    answer: Answer
    reasons: tuple[str, ...]
    warnings: tuple[Warned, ...]
    fit: published.PublishedFit
    interval: KneeInterval
    resampled: Resampled
    bounds: Bounds
    curve: Curve
    own: Candidate
    rivals: tuple[Candidate, ...]
    chosen: Candidate
    transition: TransitionTest
    lack_of_fit: float | None
    near_lossless: LimitPoint | None
    shown_by_rival: bool = False

    def as_json(self) -> dict[str, Any]:
        """The answer as JSON; docs/threshold.md shows each field. The first call fits with points left out."""
        below, above = self.fit.slopes()
        measured_below, measured_above = slopes(self.curve, self.fit.s0)
        return {
            "s0": self.fit.s0,
            "ci": [self.interval.low, self.interval.high],
            "form": self.chosen.form.name,
            "identifiable": self.answer == "transition",
            "params": self.fit.params(),
            "log_sse": self.fit.log_sse,
            "rivals": [self._rival(rival) for rival in self.rivals],
            "answer": self.answer,
            "reasons": list(self.reasons),
            "bounds": self.bounds.as_json(),
            "at_bounds": at_bounds(self.fit, self.bounds),
            "points": len(self.curve),
            "interval": {
                "confidence": CONFIDENCE,
                "resampled": self.resampled,
                "searched": list(self.interval.searched),
            },
            "aicc": self.own.aicc,
            "left_out_error": self.own.left_out_error,
            "shown_by_rival": self.shown_by_rival,
            "transition_test": {"p": self.transition.p, "level": TRANSITION_LEVEL, **self.transition.p_values},
            "lack_of_fit": self.lack_of_fit,
            "slopes": {
                "below": below,
                "above": above,
                "measured_below": measured_below,
                "measured_above": measured_above,
            },
            "near_lossless": self.near_lossless and self.near_lossless.as_json(),
        }

    def _rival(self, rival: Candidate) -> dict[str, Any]:
        own, other = self.own.aicc, rival.aicc
        return {
            "form": rival.form.name,
            "params": rival.fit.params,
            "log_sse": rival.fit.log_sse,
            "aicc": other,
            "delta_aicc": None if own is None or other is None else other - own,
            "left_out_error": rival.left_out_error,
            "transition_at": _place(rival),
        }


def fit_threshold(
    curve: Curve,
    bounds: Bounds | None = None,
    *,
    dense: float | None = None,
    documents: DocumentLosses | None = None,
    seed: int = 0,
    check: Callable[[], None] = lambda: None,
) -> ThresholdAnswer:
    """Fits, tests and compares; a second or two with `as_json`, of 200 points several.

    `dense`: perplexity of the unmodified model on the same text. `documents`: losses by document at the curve's
    settings, in rising order of s; the interval is then over documents, else over residuals. `check` is called
    between steps, and by `as_json`, and may raise to stop. Deterministic for a seed.

    Raises ValueError if the bounds of s0 miss the measured range, or the documents do not belong to the curve.
    """
    bounds = bounds or Bounds()
    knee_range = bounds.knee_range(curve)
    if documents is not None and not np.allclose(documents.logs(), curve.log_N, rtol=0, atol=1e-6):
        raise ValueError("the documents' losses do not add up to the curve")
    fit = published.fit(curve, bounds)
    check()
    interval = (
        knee_interval(curve, bounds, fit, seed=seed)
        if documents is None
        else document_interval(curve.s_N, documents, bounds, seed=seed)
    )
    check()
    tested = transition_test(curve, bounds, documents=documents, seed=seed)
    check()
    fits = lack_of_fit(curve, bounds, fit, seed=seed)
    check()
    forms: list[Form] = [
        published.PublishedForm(bounds, knee_range),
        PowerLaw(),
        Exponential(),
        LineForm(),
        Logistic(),
        BrokenLine(),
        PublishedWithOffset(bounds, knee_range, dense),
    ]
    candidates = []
    for form in forms:
        candidates.append(candidate(form, curve, check))
        check()

    missed = missed_transition(candidates[1:]) if tested.p > TRANSITION_LEVEL else None
    answer, reasons = _judge(curve, bounds, fit, interval, tested, missed, candidates, documents)
    chosen = choose(_eligible(candidates, answer))
    return ThresholdAnswer(
        answer=answer,
        reasons=tuple(reasons),
        warnings=(
            *_warnings(curve, fit, bounds, fits, candidates[0], chosen, missed),
            *(_slight(curve, dense, documents) if answer == "transition" else ()),
        ),
        fit=fit,
        interval=interval,
        resampled="residuals" if documents is None else "documents",
        bounds=bounds,
        curve=curve,
        own=candidates[0],
        rivals=tuple(candidates[1:]),
        chosen=chosen,
        transition=tested,
        lack_of_fit=fits,
        near_lossless=None if dense is None else near_lossless(curve, dense),
        shown_by_rival=missed is not None,
    )


def _eligible(candidates: Sequence[Candidate], answer: Answer) -> list[Candidate]:
    """The forms that agree with the answer: those without a transition if there is none, those with one if there is
    one. The test has preferred the latter to every straight form. All, if it cannot be known."""
    if answer == "not identifiable":
        return list(candidates)
    return [one for one in candidates if one.form.transition is (answer == "transition")]


def at_bounds(fit: published.PublishedFit, bounds: Bounds) -> list[str]:
    """The coefficients that rest on a bound of their own without being fixed by it."""
    values = fit.params()
    return [
        name
        for name in NAMES
        if not bounds.fixed(name)
        and any(
            side is not None and math.isclose(values[name], side, rel_tol=1e-7, abs_tol=1e-9)
            for side in getattr(bounds, name)
        )
    ]


def _judge(
    curve: Curve,
    bounds: Bounds,
    fit: published.PublishedFit,
    interval: KneeInterval,
    tested: TransitionTest,
    missed: Missed | None,
    candidates: Sequence[Candidate],
    documents: DocumentLosses | None,
) -> tuple[Answer, list[str]]:
    own = candidates[0]
    free = published.free_coefficients(bounds)
    if len(curve) <= free:
        return "not identifiable", [f"{len(curve)} points for {free} free coefficients leave nothing to test"]
    if tested.p > TRANSITION_LEVEL:
        simplest = max(tested.p_values, key=lambda name: tested.p_values[name])
        needed = f"(p = {tested.p:.2g}; a transition needs {TRANSITION_LEVEL:g})"
        if missed is not None:
            told = f"and the published form follows it no better than {_WORDS[simplest]} {needed}"
            return "not identifiable", [f"{_described(curve, missed)}, {told}"]
        if own.aicc is None and (far := _straight_is_far(curve, candidates)):
            points = f"{len(curve)} points are too few for the test to show a transition {needed}"
            return "not identifiable", [f"{points}, and {far}"]
        count = FEW_DOCUMENTS if documents is None else len(documents.tokens_D)
        if count < FEW_DOCUMENTS and tested.p_by_points <= TRANSITION_LEVEL:
            told = f"what {count} documents share bends {_WORDS[simplest]} by as much {needed}"
            return "not identifiable", [f"{told}: {FEW_DOCUMENTS} or more would tell whether the curve turns"]
        told = f"the published form describes the curve no better than {_WORDS[simplest]} does"
        return "no transition in range", [f"{told} {needed}"]
    reasons = _why_no_threshold(curve, fit, own) + _why_not_identifiable(curve, bounds, fit, interval)
    return ("not identifiable" if reasons else "transition"), reasons


def _straight_is_far(curve: Curve, candidates: Sequence[Candidate]) -> str:
    """How far from the measured values the best straight form is somewhere, where it is far; "" where it is not."""
    straight = {
        one.form.name: curve.log_N - one.fit.predict(curve.s_N) for one in candidates if not one.form.transition
    }
    name = min(straight, key=lambda one: float((straight[one] ** 2).sum()))
    worst = float(straight[name][np.abs(straight[name]).argmax()])
    if abs(worst) <= _FAR:
        return ""
    of_it = numeral(100 * abs(math.expm1(worst)), ".2g")
    return f"{_WORDS[name]} is off by up to {of_it} % of what it says"


def _described(curve: Curve, missed: Missed) -> str:
    """Which rival shows a transition, where, and how clearly."""
    rival = missed.rival
    place = _place(rival)
    where = ""
    if place is not None:
        outside = "" if place <= curve.s_N[-1] else "beyond the measured range, "
        is_middle = "midpoint" in rival.fit.params
        where = f", {'its middle' if is_middle else 'with its knee'} {outside}at s = {place:.3g},"
    better = f"describes it far better than a straight form (AICc lower by {missed.gain:.1f})"
    return f"{_WORDS[rival.form.name]}{where} {better}"


def _place(rival: Candidate) -> float | None:
    """Where a form changes regime; None for one that does not."""
    return next((rival.fit.params[name] for name in _PLACES if name in rival.fit.params), None)


def _why_no_threshold(curve: Curve, fit: published.PublishedFit, own: Candidate) -> list[str]:
    """Of a curve that turns: whether it turns to the worse, and whether there are points to judge the form by."""
    below, above = slopes(curve, fit.s0)
    reasons = []
    if below is not None and above is not None and above <= below:
        reasons.append(
            f"the measured curve is flatter beyond s = {fit.s0:.3g} than up to it ({above:.3g} and {below:.3g} of ln y "
            "per unit of s): the loss grows no faster from there"
        )
    if own.aicc is None:
        reasons.append(f"{len(curve)} points are too few for the AICc of the published form, which nothing then judges")
    return reasons


def _why_not_identifiable(
    curve: Curve, bounds: Bounds, fit: published.PublishedFit, interval: KneeInterval
) -> list[str]:
    if bounds.fixed("s0"):
        return ["the bounds fix s0"]
    reasons = []
    sides = (("up to", curve.s_N <= fit.s0, ("a", "b")), ("beyond", curve.s_N > fit.s0, ("s0", "k1", "k2")))
    for side, there_N, names in sides:
        points, free = int(there_N.sum()), [name for name in names if not bounds.fixed(name)]
        if points <= len(free):
            told = f"{points} points {side} the knee for {len(free)} coefficients ({', '.join(free)})"
            reasons.append(f"{told} leave nothing to check its place by")
    low, high = interval.searched
    first, last = curve.s_N[0], curve.s_N[-1]
    if low > first and interval.low <= low + _NEAR:
        reasons.append(f"the interval's lower limit, {interval.low:.4g}, rests on the lower bound of s0")
    elif interval.low <= curve.s_N[1] + _NEAR:
        reasons.append(f"the interval's lower limit, {interval.low:.4g}, reaches the lower end of the measured range")
    if high < last and interval.high >= high - _NEAR:
        reasons.append(f"the interval's upper limit, {interval.high:.4g}, rests on the upper bound of s0")
    elif interval.high >= curve.s_N[-2] - _NEAR:
        reasons.append(f"the interval's upper limit, {interval.high:.4g}, reaches the upper end of the measured range")
    width = interval.high - interval.low
    if width > WIDEST * (high - low):
        reasons.append(f"the interval is {_share(width / (high - low))} of the searched range wide")
    return reasons


def _warnings(
    curve: Curve,
    fit: published.PublishedFit,
    bounds: Bounds,
    fits: float | None,
    own: Candidate,
    chosen: Candidate,
    missed: Missed | None,
) -> list[Warned]:
    found: list[Warned] = [
        ("at_bound", {"coefficient": name, "value": fit.params()[name]})
        for name in at_bounds(fit, bounds)
        if name != "s0"
    ]
    if _falls(curve):
        found.append(("falling", {}))
    if fits is not None and fits <= _LACK_OF_FIT_LEVEL:
        found.append(("lack_of_fit", {"p": fits}))
    if missed is not None:
        found.append(("not_where_it_turns", {}))
    if chosen is own:
        return found
    if own.aicc is None:
        found.append(("too_few_for_aicc", {}))
    elif chosen.aicc is not None and chosen.aicc < own.aicc:
        found.append(("better_form", {"form": _WORDS[chosen.form.name], "difference": chosen.aicc - own.aicc}))
    middle = chosen.fit.params.get("midpoint")
    if middle is not None and missed is None:
        found.append(("gradual", {"form": _WORDS[chosen.form.name], "middle": middle}))
    return found


def _slight(curve: Curve, dense: float | None, documents: DocumentLosses | None) -> list[Warned]:
    """What is reported of a knee in perplexities that stay near-lossless from one end to the other."""
    if dense is None or (documents is not None and documents.quantity != "perplexity"):
        return []
    worst = float(curve.log_N.max()) - math.log(dense)
    if worst >= NEAR_LOSSLESS:
        return []
    return [("near_lossless", {"percent": 100 * math.expm1(worst)})]


def _falls(curve: Curve) -> bool:
    """Whether a straight line through ln y falls, at the 1 % level."""
    line = stats.linregress(curve.s_N, curve.log_N)
    return bool(line.slope < 0 and line.pvalue < _FALLING_LEVEL)


def _share(value: float) -> str:
    return f"{100 * value:.3g} %"
