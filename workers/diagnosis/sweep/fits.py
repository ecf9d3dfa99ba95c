"""The thresholds of a course: the published form fitted to perplexity and to KL, as the report holds them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, Literal

import numpy as np

from app.contracts.notice import Notice
from app.contracts.notices import ThresholdNotice
from app.kinds.sweep.report import KneeInterval, Rival, Threshold, TransitionTest
from app.kinds.sweep.request import FormBounds
from workers.analysis.threshold.answer import ThresholdAnswer, fit_threshold
from workers.analysis.threshold.bounds import Bounds
from workers.analysis.threshold.curve import FEWEST_POINTS, Curve
from workers.analysis.threshold.interval import CONFIDENCE
from workers.diagnosis.sweep.course import Course, MeasuredPoint

Of = Literal["perplexity", "kl"]
# A perplexity beyond is no number of 64 bits any more.
MOST_LOG: Final = 700.0


def threshold_of(
    course: Course, of: Of, bounds: FormBounds, *, seed: int, check: Callable[[], None] = lambda: None
) -> Threshold | str:
    """The threshold on one quantity, or why there is none. The bounds are those of the perplexity's form; KL is fitted
    without, but for those of s0."""
    points, why = fitted_points(course, of)
    if why:
        return why
    losses = course.losses(points, "perplexity" if of == "perplexity" else "divergence")
    if float(losses.logs().max()) > MOST_LOG:
        return f"the {of} of some settings is larger than can be fitted (above e^{MOST_LOG:g})"
    curve = Curve.of([point.s or 0.0 for point in points], np.exp(losses.logs()))
    dense = None
    if of == "perplexity":
        dense = math.exp(float(course.dense().sum() / losses.tokens_D.sum()))
    box = bounds_of(bounds) if of == "perplexity" else Bounds(s0=bounds.s0)
    try:
        box.knee_range(curve)
    except ValueError as error:
        return str(error)
    documents = losses if course.resampled(losses) else None
    answer = fit_threshold(curve, box, dense=dense, documents=documents, seed=seed, check=check)
    left_out = _left_out(bounds) if of == "kl" else ()
    return _as_contract(answer, of, points, course, left_out)


def _left_out(bounds: FormBounds) -> tuple[Notice, ...]:
    """What is reported of bounds that were asked for and do not hold for KL; nothing where there are none."""
    names = tuple(name for name, pair in bounds if name != "s0" and pair != (None, None))
    return (ThresholdNotice.BOUNDS_LEFT_OUT(coefficients=names),) if names else ()


def curve_points(course: Course, of: Of) -> list[MeasuredPoint]:
    """The points that can stand in a curve, rising in s, each s once. Of several it is the one that was asked for
    first, so that what was measured does not choose among them."""
    points: dict[float, MeasuredPoint] = {}
    for point in sorted(course.whole, key=lambda point: point.index):
        if point.s is None or not 0 < point.s <= 1:
            continue
        if of == "kl" and sum(point.record.sums.kl if point.record.sums else ()) <= 0:
            continue
        points.setdefault(point.s, point)
    return [points[s] for s in sorted(points)]


def fitted_points(course: Course, of: Of) -> tuple[list[MeasuredPoint], str]:
    """The points that the form is fitted to; and why there are too few, else empty."""
    if any(point.s is None for point in course.points):
        return [], "this knob removes no share of the model, so that no form is known for its curve"
    points = curve_points(course, of)
    if len(points) < FEWEST_POINTS:
        shares = "one share" if len(points) == 1 else f"{len(points)} different shares"
        return [], (
            f"settings of {shares} could be measured, and the published form takes {FEWEST_POINTS} at least; 10 and "
            "more say something about its knee"
        )
    return points, ""


def bounds_of(bounds: FormBounds) -> Bounds:
    """As the fit takes them."""
    return Bounds(a=bounds.a, b=bounds.b, s0=bounds.s0, k1=bounds.k1, k2=bounds.k2)


def _as_contract(
    answer: ThresholdAnswer,
    of: Of,
    points: Sequence[MeasuredPoint],
    course: Course,
    left_out: tuple[Notice, ...],
) -> Threshold:
    found = answer.as_json()
    ends = (answer.interval.low, answer.interval.high)
    value, value_ci = None, None
    if course.axis_kind == "value":
        s_P, value_P = [float(point.s or 0.0) for point in points], course.axis(points)
        value = float(np.interp(answer.fit.s0, s_P, value_P))
        low, high = sorted(float(np.interp(end, s_P, value_P)) for end in ends)
        value_ci = (low, high)
    tests = answer.transition.p_values
    return Threshold(
        of=of,
        s0=answer.fit.s0,
        ci=ends,
        value=value,
        value_ci=value_ci,
        form=found["form"],
        bounds={name: (pair[0], pair[1]) for name, pair in found["bounds"].items()},
        identifiable=found["identifiable"],
        rivals=tuple(Rival(**{**rival, "params": _finite(rival["params"])}) for rival in found["rivals"]),
        answer=answer.answer,
        reasons=answer.reasons,
        warnings=(*left_out, *(ThresholdNotice.of(*one) for one in answer.warnings)),
        params=found["params"],
        log_sse=found["log_sse"],
        aicc=found["aicc"],
        left_out_error=found["left_out_error"],
        at_bounds=tuple(found["at_bounds"]),
        points=len(points),
        interval=KneeInterval(
            confidence=CONFIDENCE,
            resampled=answer.resampled,
            searched=(found["interval"]["searched"][0], found["interval"]["searched"][1]),
        ),
        transition_test=TransitionTest(
            p=answer.transition.p,
            level=found["transition_test"]["level"],
            power_law=tests["power_law"],
            exponential=tests["exponential"],
            line=tests["line"],
        ),
        lack_of_fit=answer.lack_of_fit,
        shown_by_rival=answer.shown_by_rival,
    )


def _finite(params: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in params.items() if math.isfinite(value)}
