"""Factors against closed forms, hand-made cases and simulation."""

import numpy as np
import pytest
from scipy import stats

from workers.diagnosis.trajectory.amplification import conclusion_of, ratio_of


def test_the_factor_is_the_ratio_of_the_sums_and_not_the_mean_of_ratios():
    ratio = ratio_of([4.0, 0.0, 2.0], [1.0, 1.0, 4.0])
    assert ratio.value == pytest.approx(6 / 6)


def test_where_no_text_parts_the_factor_is_one_by_construction_and_has_no_interval():
    values = np.random.default_rng(0).exponential(size=20)
    ratio = ratio_of(values, values, telling_N=[False] * 20)
    assert (ratio.value, ratio.ci) == (1, None)
    assert ratio_of(values, values).ci is None  # draws would give 1 to 1
    assert conclusion_of(ratio, values) == "open"


def test_a_few_prompts_among_many_leave_no_interval():
    """28 tokens that differ after 2 steps that disagree, in so many of 32 prompts: of one, draws give 14 to 14."""
    above, below = np.zeros(32), np.zeros(32)
    for parting in (1, 5):
        above[:parting], below[:parting] = 28.0 + np.arange(parting), 2.0
        ratio = ratio_of(above, below)
        assert (ratio.value, ratio.ci) == (pytest.approx(14 + (parting - 1) / 4), None)
        assert conclusion_of(ratio, above) == "open"
    above[:6], below[:6] = (20, 28, 36, 9, 14, 31), (1, 2, 3, 2, 1, 2)
    ratio = ratio_of(above, below)
    assert ratio.ci[0] < ratio.value - 1 < ratio.value + 1 < ratio.ci[1]


def test_a_factor_has_no_interval_if_too_few_prompts_have_both_sums():
    ratio = ratio_of(np.zeros(32), [1.0] * 8 + [0.0] * 24)
    assert (ratio.value, ratio.ci) == (0, None)
    assert ratio_of([2.0, 3.0, 5.0], [1.0, 2.0, 2.0]).ci is not None
    assert ratio_of([2.0, 2.0, 5.0], [1.0, 2.0, 2.0]).ci is not None, "as many by coincidence"
    assert ratio_of([2.0, 2.0, 5.0], [1.0, 2.0, 2.0], telling_N=[True, False, True]).ci is None
    assert ratio_of([2.0, 3.0, 5.0], [1.0, 0.0, 2.0]).ci is None


def test_without_a_sum_below_there_is_no_factor_and_one_prompt_has_no_interval():
    for above, below, value, conclusion in (
        ([0.0, 0.0], [0.0, 0.0], None, "no_damage"),
        ([1.0, 2.0, 3.0], [0.0, 0.0, 0.0], None, "open"),  # damage on its own text alone
        ([3.0], [1.0], 3.0, "open"),
    ):
        ratio = ratio_of(above, below)
        assert (ratio.value, ratio.ci) == (value, None)
        assert conclusion_of(ratio, above) == conclusion


def test_few_prompts_get_students_t_of_the_linearized_error():
    above, below = np.array([2.0, 3.0, 5.0]), np.array([1.0, 2.0, 2.0])
    ratio = ratio_of(above, below)
    r = above.sum() / below.sum()
    error = np.sqrt(3 / 2 * ((above - r * below) ** 2).sum()) / below.sum()
    half = stats.t.ppf(0.975, 2) * error
    assert ratio.ci == pytest.approx((max(0.0, r - half), r + half))


def test_a_clear_factor_is_concluded():
    for factor, wanted in ((3.0, "amplifies"), (0.3, "damps"), (1.0, "open")):
        rng = np.random.default_rng(1)
        below = rng.gamma(2.0, size=40)
        above = factor * below * rng.lognormal(0, 0.2, size=40)
        assert conclusion_of(ratio_of(above, below), above) == wanted


def test_the_interval_of_a_token_factor_covers_where_a_quarter_of_the_texts_part():
    """Texts of 100 tokens that part at a place of their own and differ from there on; single steps disagree at that
    place, and by chance at one in fifty of those before. Of 32 prompts where a quarter parts, the few draws with fewer
    than six are told to have no interval."""
    rng = np.random.default_rng(5)
    expected = 0.25 * 50.5 / (0.25 * (1 + 0.02 * 49.5) + 0.75 * 2)
    covered = asked = 0
    for _ in range(60):
        parts = rng.random(32) < 0.25
        place = rng.integers(1, 101, 32)
        below = np.where(parts, 1.0 + rng.binomial(np.where(parts, place - 1, 0), 0.02), rng.binomial(100, 0.02, 32))
        ratio = ratio_of(np.where(parts, 101.0 - place, 0.0), below, seed=1)
        if ratio.ci is not None:
            asked += 1
            covered += ratio.ci[0] <= expected <= ratio.ci[1]
    assert asked > 40
    assert covered >= stats.binom.ppf(0.001, asked, 0.95)


def test_the_interval_covers_the_true_factor():
    """Paired gamma amounts by prompt, true factor 1.5, as skewed as KL sums are."""
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(40):
        level = rng.lognormal(0, 0.8, size=32)
        below = level * rng.gamma(4.0, 0.25, size=32)
        above = 1.5 * level * rng.gamma(4.0, 0.25, size=32)
        low, high = ratio_of(above, below, seed=3).ci
        covered += low <= 1.5 <= high
    assert covered >= 33  # 0.1 % point of 40 draws at 95 %
