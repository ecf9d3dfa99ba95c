"""Answers without a form, on curves whose answer can be read off by hand."""

import math

import numpy as np
import pytest

from workers.analysis.threshold.curve import Curve
from workers.analysis.threshold.documents import DocumentLosses
from workers.analysis.threshold.formfree import (
    NEAR_LOSSLESS,
    largest_mild,
    near_lossless,
    near_lossless_of_documents,
    slopes,
)

S = [0.1, 0.2, 0.3, 0.4, 0.5]


def rising(*increases: float) -> Curve:
    return Curve.of(S[: len(increases)], 6.157 * np.exp(increases))


def test_the_rule_is_one_and_a_half_perplexity_at_the_published_level() -> None:
    assert 6.157 * math.exp(NEAR_LOSSLESS) == pytest.approx(6.157 + 1.5)


def test_the_near_lossless_point_lies_between_the_settings_that_straddle_the_limit() -> None:
    found = near_lossless(rising(0, 0.1, NEAR_LOSSLESS - 0.1, NEAR_LOSSLESS + 0.3, 2), 6.157)
    assert found.largest == 0.3
    assert found.at == pytest.approx(0.3 + 0.1 * 0.25)


def test_wanda_is_near_lossless_to_fifty_per_cent() -> None:
    """LLaMA-2-7B, dense 5.12: 6.31 at 50 % is +0.209, 9.23 at 60 % is +0.589."""
    curve = Curve.of([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [5.14, 5.23, 5.36, 5.64, 6.31, 9.23])
    found = near_lossless(curve, 5.12)
    assert found.largest == 0.5
    assert found.at == pytest.approx(0.502, abs=0.001)


def test_a_limit_never_or_always_passed_has_no_crossing() -> None:
    assert near_lossless(rising(0, 0.01, 0.02, 0.03, 0.04), 6.157).as_json() == {
        "limit": NEAR_LOSSLESS, "largest": 0.5, "at": None, "ci": None
    }  # fmt: skip
    past = near_lossless(rising(1, 1, 1, 1, 1), 6.157)
    assert (past.largest, past.at) == (None, None)


def test_a_later_return_below_the_limit_does_not_count() -> None:
    assert near_lossless(rising(0, 0.5, 0, 0, 0), 6.157).largest == 0.1


def test_the_largest_mild_setting_follows_the_upper_limit_and_its_interval_both() -> None:
    found = largest_mild(
        S,
        kl=[0.001, 0.01, 0.1, 1, 2],
        low=[0.0005, 0.005, 0.025, 0.1, 1],
        high=[0.01, 0.1, 1, 2, 4],
        moderate_from=0.05,
    )
    assert found.largest == 0.1
    # Logarithms are interpolated: 0.05 lies log10(5) of the way from 0.01 to 0.1, and halfway from 0.025 to 0.1.
    assert found.at == pytest.approx(0.2 + 0.1 * math.log10(5))
    # The upper limit passes no earlier than on a straight line, the lower one no later than by the stronger setting.
    assert found.ci == pytest.approx((0.1 + 0.1 * 0.04 / 0.09, 0.4))


def test_settings_may_fall_as_bits_do() -> None:
    bits = [8, 6, 4, 3, 2]
    found = largest_mild(
        bits,
        kl=[0.002, 0.02, 0.33, 1, 3],
        low=[0.001, 0.01, 0.3, 1, 3],
        high=[0.003, 0.03, 0.4, 2, 4],
        moderate_from=0.05,
    )
    assert found.largest == 6
    assert found.at == pytest.approx(6 - 2 * math.log(0.05 / 0.02) / math.log(0.33 / 0.02))
    assert found.ci == pytest.approx((6 - 2 * 0.02 / 0.37, 4))


def test_a_divergence_of_exactly_zero_is_mild() -> None:
    found = largest_mild(S, kl=[0, 0, 0, 0.1, 1], low=[0, 0, 0, 0, 0], high=[0, 0, 0, 0.2, 2], moderate_from=0.05)
    assert found.largest == 0.3
    assert found.ci[1] is None


@pytest.mark.parametrize(
    ("settings", "kl", "low", "high", "at", "ci"),
    [
        # From no divergence at all: a straight line to 0.30, and nothing that says where on it.
        ([1.0, 1.1], [0, 0.30], [0, 0.25], [0, 0.36], 1 + 0.1 * 0.05 / 0.30, (1.0, 1.1)),
        # An excess over the noise floor may have a lower limit below 0.
        ([8, 4], [0.0002, 0.3], [-0.0001, 0.2], [0.0005, 0.4], 8 - 4 * 0.0498 / 0.2998, (8, 4)),
        # Below a thousandth of the limit of 0.05; the upper limit passes earlier, where all is resolved.
        (
            [1, 2, 3],
            [0.001, 0.00004, 0.3],
            [0.0005, 0.00001, 0.2],
            [0.005, 0.5, 0.6],
            2 + 0.04996 / 0.29996,
            (1 + 0.045 / 0.495, 3),
        ),
        # The lower limit, which is not resolved, passes beyond: the mean has logarithms before.
        (
            [1, 2, 3],
            [0.005, 0.5, 0.9],
            [-0.001, 0.01, 0.8],
            [0.01, 0.9, 1.0],
            1.5,
            (1 + 0.04 / 0.89, 3),
        ),
    ],
)
def test_what_is_next_to_nothing_has_no_logarithm(settings, kl, low, high, at, ci) -> None:
    found = largest_mild(settings, kl, low, high, 0.05)
    assert found.at == pytest.approx(at)
    assert found.ci == pytest.approx(ci)


def test_the_place_lies_within_its_interval_whatever_the_divergences() -> None:
    rng = np.random.default_rng(5)
    crossed = 0
    for _ in range(400):
        kl = np.sort(rng.choice([0.0, *10 ** rng.uniform(-7, 1, 5)], 5))
        spread = np.abs(kl) * rng.uniform(0, 2, 5) + 10 ** rng.uniform(-7, -2)
        found = largest_mild(S, kl, kl - spread, kl + spread, 0.05)
        if found.at is None:
            continue
        crossed += 1
        assert (found.ci[0] or 0.0) <= found.at <= (found.ci[1] or 1.0)
    assert crossed > 100


def test_before_a_collapse_the_place_is_the_last_setting_and_its_interval_the_gap() -> None:
    inf = math.inf
    found = largest_mild([8, 6, 4], [0.001, 0.01, inf], [0.0005, 0.005, inf], [0.002, 0.02, inf], 0.05)
    assert (found.largest, found.at, found.ci) == (6, 6, (6, 4))
    early = largest_mild([8, 6, 4], [0.001, 0.01, inf], [0.0005, 0.005, inf], [0.005, 0.5, inf], 0.05)
    assert early.ci == pytest.approx((8 - 2 * 0.045 / 0.495, 4)), "the upper limit passes on the way to 6"
    tokens_D, dense_D = np.full(8, 100), np.linspace(200, 400, 8)
    for rise, at, ci in ((0.1, 0.2, (0.2, 0.3)), (2 * NEAR_LOSSLESS, 0.15, (0.15, 0.2))):
        sums_PD = dense_D + np.array([[0.0], [rise]]) * tokens_D
        found = near_lossless_of_documents([0.1, 0.2], DocumentLosses.of(sums_PD, tokens_D), dense_D, collapse=0.3)
        assert found.at == pytest.approx(at)
        assert found.ci == pytest.approx(ci)


@pytest.mark.parametrize("convex", [True, False])
def test_the_interval_holds_the_crossing_of_smooth_curves_on_random_grids(convex) -> None:
    rng = np.random.default_rng(3)
    held, crossed = 0, 0
    for _ in range(400):
        power, rate, scale = rng.uniform(1, 4), rng.uniform(2, 14), 10 ** rng.uniform(-0.5, 1.5)
        offset = rng.choice([0, 0.003, 0.02])
        powers = bool(rng.integers(2))
        setting_P = np.sort(rng.uniform(0, 1, rng.integers(2, 7)))
        kl = offset + scale * setting_P**power if powers else scale * np.exp(rate * (setting_P - 1))
        found = largest_mild(setting_P, kl, kl, kl, 0.05, convex=convex)
        if found.ci is None or found.ci[0] is None or found.ci[1] is None:
            continue
        truth = ((0.05 - offset) / scale) ** (1 / power) if powers else 1 + math.log(0.05 / scale) / rate
        crossed += 1
        held += found.ci[0] - 1e-9 <= truth <= found.ci[1] + 1e-9
        assert convex or found.ci[0] in setting_P, "of a knob without a shape only the gap is known"
    assert crossed > 150
    assert held == crossed


def test_of_settings_at_the_same_value_the_last_within_the_limit_is_named() -> None:
    found = largest_mild(
        [0.25, 0.5, 0.5, 0.75],
        kl=[0.001, 0.01, 0.2, 0.9],
        low=[0.0005, 0.005, 0.1, 0.8],
        high=[0.002, 0.02, 0.3, 1.0],
        moderate_from=0.05,
    )
    assert (found.largest, found.last, found.at, found.ci) == (0.5, 1, 0.5, (0.5, 0.5))
    assert largest_mild([0.5, 0.5], [1, 1], [1, 1], [1, 1], 0.05).last is None


def test_the_interval_over_documents_holds_the_crossing_and_shrinks_with_documents() -> None:
    widths = []
    increase_P = np.array([0.02, 0.1, 0.3, 0.7, 1.5])
    for documents in (12, 300):
        rng = np.random.default_rng(0)
        tokens_D, dense_D = np.full(documents, 100), rng.normal(3, 0.5, documents)
        suffering_D = rng.lognormal(-0.125, 0.5, documents)
        sums_PD = (dense_D + increase_P[:, None] * suffering_D) * 100
        found = near_lossless_of_documents(S, DocumentLosses.of(sums_PD, tokens_D), dense_D * 100, resamples=499)
        low, high = found.ci
        assert low < found.at < high
        widths.append(high - low)
    truth = 0.2 + 0.1 * (NEAR_LOSSLESS - 0.1) / 0.2
    assert low < truth < high
    assert widths[1] < 0.5 * widths[0]


def test_slopes_on_both_sides_are_regressions() -> None:
    s_N = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.7])
    curve = Curve(s_N, np.array([0.0, 0.2, 0.4, 1.0, 2.0, 4.0]))
    below, beyond = slopes(curve, 0.3)
    assert below == pytest.approx(2.0)
    assert beyond == pytest.approx(np.polyfit(s_N[3:], curve.log_N[3:], 1)[0])
    assert slopes(curve, 0.5)[1] is None
    assert slopes(curve, 0.2)[0] == pytest.approx(2.0), "two points are a line"
    assert slopes(curve, 0.1) == (None, pytest.approx(np.polyfit(s_N[1:], curve.log_N[1:], 1)[0]))


def test_rows_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in number"):
        largest_mild(S, [0.1], [0.1], [0.1], 0.05)
    with pytest.raises(ValueError, match="positive"):
        largest_mild([0.1], [0.1], [0.1], [0.1], 0.0)
    losses = DocumentLosses.of(np.ones((5, 6)), np.ones(6))
    with pytest.raises(ValueError, match="differ in number"):
        near_lossless_of_documents(S[:4], losses, np.ones(6))
