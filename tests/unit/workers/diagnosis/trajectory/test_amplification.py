"""Factors against closed forms, hand-made cases and simulation."""

import numpy as np
import pytest
from scipy import stats

from workers.diagnosis.trajectory.amplification import conclusion_of, ratio_of


def test_the_factor_is_the_ratio_of_the_sums_and_not_the_mean_of_ratios():
    ratio = ratio_of([4.0, 0.0, 2.0], [1.0, 1.0, 4.0])
    assert ratio.value == pytest.approx(6 / 6)


def test_equal_numerators_and_denominators_are_exactly_one_with_an_interval_of_no_width():
    values = np.random.default_rng(0).exponential(size=20)
    ratio = ratio_of(values, values)
    assert ratio.value == 1
    assert ratio.ci == pytest.approx((1, 1))
    assert ratio.above_one is False
    assert conclusion_of(ratio, values) == "open"


def test_nothing_to_amplify_is_said():
    ratio = ratio_of([0.0, 0.0], [0.0, 0.0])
    assert ratio.value is None
    assert conclusion_of(ratio, [0.0, 0.0]) == "no_damage"


def test_damage_on_its_own_text_alone_is_damage():
    """Six nats over none: there is no factor, but there is something that could have been amplified."""
    ratio = ratio_of([1.0, 2.0, 3.0], [0.0, 0.0, 0.0])
    assert (ratio.value, ratio.ci) == (None, None)
    assert conclusion_of(ratio, [1.0, 2.0, 3.0]) == "open"


def test_a_single_prompt_has_no_interval():
    ratio = ratio_of([3.0], [1.0])
    assert (ratio.value, ratio.ci, ratio.above_one) == (3.0, None, None)
    assert conclusion_of(ratio, [3.0]) == "open"


def test_few_prompts_get_students_t_of_the_linearized_error():
    above, below = np.array([2.0, 3.0, 5.0]), np.array([1.0, 2.0, 2.0])
    ratio = ratio_of(above, below)
    r = above.sum() / below.sum()
    error = np.sqrt(3 / 2 * ((above - r * below) ** 2).sum()) / below.sum()
    half = stats.t.ppf(0.975, 2) * error
    assert ratio.ci == pytest.approx((max(0.0, r - half), r + half))


@pytest.mark.parametrize(("factor", "wanted"), [(3.0, "amplifies"), (0.3, "damps"), (1.0, "open")])
def test_a_clear_factor_is_concluded(factor, wanted):
    rng = np.random.default_rng(1)
    below = rng.gamma(2.0, size=40)
    above = factor * below * rng.lognormal(0, 0.2, size=40)
    assert conclusion_of(ratio_of(above, below), above) == wanted


def test_prompts_without_damage_do_not_break_the_draws():
    below = np.zeros(30)
    below[3] = 2.0
    above = np.zeros(30)
    above[3] = 4.0
    ratio = ratio_of(above, below)
    assert ratio.value == 2
    assert ratio.ci is not None
    assert np.isfinite(ratio.ci).all()


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


@pytest.mark.parametrize(("above", "below"), [([1.0], [1.0, 2.0]), ([-1.0], [1.0]), ([float("nan")], [1.0])])
def test_what_is_no_amount_is_refused(above, below):
    with pytest.raises(ValueError, match=r"numerators|negative"):
        ratio_of(above, below)
