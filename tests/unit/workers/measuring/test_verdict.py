"""The rule, case by case, and the sentence that tells it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.contracts.report import SEVERITIES, Mean
from app.contracts.request import Thresholds
from app.verdicts import fails
from workers.distributions.intervals import Clusters, Estimate
from workers.measuring.verdict import decide, sentence

LIMITS = Thresholds()


def excess(mean: float, low: float | None = None, high: float | None = None, *, tokens: int = 8000) -> Estimate:
    interval = None if low is None or high is None else (low, high)
    error = None if interval is None else (interval[1] - interval[0]) / 4
    return Estimate(mean, error, interval, tokens=tokens, clusters=60 if interval else 1, by="documents")


def told(found: Estimate | None, **kwargs: object) -> str:
    nonfinite = int(str(kwargs.pop("nonfinite", 0)))
    return sentence(decide(found, LIMITS, nonfinite=nonfinite), tokens=8000, nonfinite=nonfinite, **kwargs)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mean", "low", "high", "severity"),
    [
        (0.0, 0.0, 0.0, "none"),
        (-0.001, -0.002, 0.0, "none"),
        (0.002, 0.0015, 0.00999, "none"),
        (0.02, 0.01, 0.04, "mild"),  # on its threshold a class has begun
        (0.06, 0.05, 0.1, "moderate"),
        (0.33, 0.31, 0.36, "severe"),
        (5.0, 1.0, 9.0, "collapse"),
    ],
)
def test_an_interval_between_two_thresholds_is_conclusive(mean: float, low: float, high: float, severity: str) -> None:
    verdict = decide(excess(mean, low, high), LIMITS)
    assert (verdict.severity, verdict.classes, verdict.conclusive) == (severity, (severity,), True)
    assert verdict.tokens_to_decide is None


@pytest.mark.parametrize(
    ("low", "high", "classes"),
    [
        (0.005, 0.01, ("none", "mild")),  # the upper limit is not below the threshold
        (0.04, 0.06, ("mild", "moderate")),
        (0.0, 0.06, ("none", "mild", "moderate")),
        (0.1, 3.0, ("moderate", "severe", "collapse")),
    ],
)
def test_a_straddled_threshold_is_inconclusive_and_the_worst_class_is_its_severity(
    low: float, high: float, classes: tuple[str, ...]
) -> None:
    verdict = decide(excess(0.4 * low + 0.6 * high, low, high), LIMITS)
    assert verdict.classes == classes
    assert verdict.severity == classes[-1]
    assert not verdict.conclusive
    assert verdict.tokens_to_decide > 8000


def test_tokens_to_decide_is_where_the_interval_leaves_the_threshold() -> None:
    # 0.05 lies half as far above the mean as the upper limit.
    verdict = decide(excess(0.045, 0.040, 0.055), LIMITS)
    assert verdict.tokens_to_decide == pytest.approx(4 * 8000, abs=1)
    assert decide(excess(0.05, 0.04, 0.06), LIMITS).tokens_to_decide is None


def test_thresholds_of_the_request_are_the_ones_that_count() -> None:
    strict = Thresholds(mild=0.0001, moderate=0.001, severe=0.002, collapse=0.003)
    verdict = decide(excess(0.0025, 0.0021, 0.0029), strict)
    assert verdict.severity == "severe"
    assert verdict.thresholds == strict
    assert "severe 0.002" in verdict.rule


def test_a_single_position_that_is_not_finite_is_collapse() -> None:
    verdict = decide(excess(0.001, 0.0009, 0.0011), LIMITS, nonfinite=1)
    assert (verdict.severity, verdict.classes, verdict.conclusive) == ("collapse", ("collapse",), True)
    assert verdict.excess_kl.mean == 0.001
    nothing = decide(None, LIMITS, nonfinite=8000)
    assert (nothing.severity, nothing.excess_kl.mean) == ("collapse", None)
    assert nothing.minimum_detectable_effect is None


def test_without_an_interval_every_class_remains_possible() -> None:
    verdict = decide(excess(0.3), LIMITS)
    assert (verdict.severity, verdict.classes, verdict.conclusive) == ("severe", SEVERITIES, False)
    assert (verdict.tokens_to_decide, verdict.minimum_detectable_effect) == (None, None)
    assert all(fails(verdict, level) == "inconclusive" for level in SEVERITIES[1:])


def test_the_detectable_effect_is_that_of_the_spread_at_hand() -> None:
    verdict = decide(excess(0.3, 0.28, 0.32), LIMITS)
    assert verdict.minimum_detectable_effect == pytest.approx(2.8 * 0.01, rel=0.02)


def test_over_a_floor_of_exactly_zero_any_positive_kl_is_detectable() -> None:
    silent = excess(0.0, 0.0, 0.0)
    assert decide(excess(0.3, 0.28, 0.32), LIMITS, floor=silent).smallest_detectable_excess == 0.0
    assert decide(excess(0.3, 0.28, 0.32), LIMITS).smallest_detectable_excess is None


def test_over_a_noisy_floor_an_excess_of_that_size_is_detected_in_four_of_five() -> None:
    """Two runs of equal noise, the candidate's with an excess added: the interval of the difference leaves zero."""
    rng = np.random.default_rng(0)
    clusters = Clusters(np.arange(60), "documents")
    detected, sizes = 0, []
    for seed in range(400):
        floor, other = rng.gamma(4.0, 0.25, (2, 60)) * 1e-3
        (measured,) = clusters.means([floor], resamples=10)
        size = decide(excess(0.3, 0.28, 0.32), LIMITS, floor=measured).smallest_detectable_excess
        assert size is not None
        sizes.append(size)
        truth = 2.85 * math.sqrt(2) * 0.5e-3 / math.sqrt(60)
        (difference,) = clusters.means([other + truth - floor], seed=seed, resamples=1000)
        detected += difference.interval[0] > 0
    assert np.mean(sizes) == pytest.approx(truth, rel=0.05)
    assert detected / 400 == pytest.approx(0.8, abs=0.06)


@given(
    st.lists(st.floats(1e-6, 10), min_size=4, max_size=4, unique=True),
    st.floats(-1, 10),
    st.floats(0, 5),
    st.floats(0, 5),
)
def test_verdict_and_fail_on_agree_with_the_interval_alone(
    limits: list[float], mean: float, below: float, above: float
) -> None:
    mild, moderate, severe, collapse = sorted(limits)
    thresholds = Thresholds(mild=mild, moderate=moderate, severe=severe, collapse=collapse)
    verdict = decide(excess(mean, mean - below, mean + above), thresholds)
    assert verdict.conclusive == (len(verdict.classes) == 1)
    for level, limit in zip(SEVERITIES[1:], sorted(limits), strict=True):
        expected = "fail" if mean - below >= limit else "pass" if mean + above < limit else "inconclusive"
        assert fails(verdict, level) == expected
    assert sentence(verdict, tokens=8000).endswith(".")


# --- words


def test_the_sentence_names_the_class_the_interval_the_floor_and_what_would_decide() -> None:
    for found, words in (
        (told(excess(0.33, 0.31, 0.36)), ("Severe: ", "0.33 (95 % interval 0.31 to 0.36)", "limit of 0.2")),
        (told(excess(0.0, 0.0, 0.0), floor=0.0012), ("No damage: ", "8,000")),
        (told(excess(0.048, 0.041, 0.057)), ("Inconclusive, between mild and moderate: ", "0.05", "170,000")),
        (told(excess(0.1, 0.09, 0.11), nonfinite=3), ("Collapse: ", "3 of 8,000")),
        (told(excess(0.33)), ("Inconclusive: ", "0.33", "score more text")),
        (told(excess(-0.00118, -0.00121, -0.00114), floor=0.00118), ("\u22120.00118", "noise floor of 0.00118")),
        (told(excess(9.0, 8.0, 10.0), perplexity_ratio=Mean(mean=1234.5, ci=None)), ("1,234 times",)),
    ):
        assert all(word in found for word in words), found
    assert "perplexity" not in told(excess(9.0, 8.0, 10.0), perplexity_ratio=Mean(mean=1.0042, ci=None))
