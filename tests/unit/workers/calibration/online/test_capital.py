"""The capital is a supermartingale under the null: by enumeration of every stream, and by its definition."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.calibration.online.capital import FRACTIONS, Capital, advance, growth, opening, reserve, spent, value


def enumerated(payoffs: tuple[float, float], high: float, length: int, *, restarts: bool, level: float = math.inf):
    """Mean of the capital over all streams of two payoffs (the second with probability `high`), and P(ever ≥ level)."""
    streams = np.array(list(itertools.product((0, 1), repeat=length)))
    probability_S = np.prod(np.where(streams == 1, high, 1 - high), axis=1)
    staked_SK = opening(len(streams), restarts=restarts)
    crossed_S = np.zeros(len(streams), dtype=bool)
    for step in range(length):
        staked_SK = advance(staked_SK, np.asarray(payoffs)[streams[:, step]], step, restarts=restarts)
        crossed_S |= value(staked_SK, step + 1, restarts=restarts) >= level
    return probability_S @ value(staked_SK, length, restarts=restarts), probability_S @ crossed_S


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("high", [0.5, 0.2, 1 / 16])
def test_a_fair_bet_leaves_the_mean_capital_at_exactly_1(restarts: bool, high: float) -> None:
    mean, _ = enumerated((-1.0, (1 - high) / high), high, 12, restarts=restarts)
    assert mean == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("restarts", [False, True])
def test_an_unfavourable_bet_loses(restarts: bool) -> None:
    assert enumerated((-1.0, 0.9), 0.5, 12, restarts=restarts)[0] < 1


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("alpha", [0.5, 0.1, 0.02])
@pytest.mark.parametrize("high", [0.5, 0.2])
def test_looking_always_the_capital_ever_reaches_1_over_alpha_with_probability_alpha_at_most(
    restarts: bool, alpha: float, high: float
) -> None:
    _, ever = enumerated((-1.0, (1 - high) / high), high, 14, restarts=restarts, level=1 / alpha)
    assert ever <= alpha


def test_losses_beyond_one_stake_keep_the_inequality() -> None:
    # Mean 0 of the payoff clipped at -1; its true mean is far below.
    mean, ever = enumerated((-5.0, 1.0), 0.5, 12, restarts=False, level=4)
    assert mean < 1
    assert ever <= 0.25


def test_the_capital_is_that_of_gamblers_with_every_fraction_and_every_starting_time() -> None:
    payoffs = np.random.default_rng(0).uniform(-2.5, 4.0, 40)

    def alone(fraction: float, start: int) -> float:
        return math.prod(1 + fraction * z if z >= -1 else (1 - fraction) ** -z for z in payoffs[start:])

    parts = [0.5, *(reserve(t - 1) - reserve(t) for t in range(1, 40))]
    expected = reserve(39) + sum(
        part / len(FRACTIONS) * alone(fraction, start) for start, part in enumerate(parts) for fraction in FRACTIONS
    )
    capital = Capital.new(restarts=True)
    for payoff in payoffs:
        capital = capital.after(payoff)
    assert capital.value == pytest.approx(expected, rel=1e-12)
    assert sum(parts) + reserve(39) == pytest.approx(1.0)


def test_one_stream_and_many_are_the_same() -> None:
    payoffs_TS = np.random.default_rng(1).uniform(-1.5, 2.0, (50, 3))
    staked_SK = opening(3, restarts=True)
    for step, payoff_S in enumerate(payoffs_TS):
        staked_SK = advance(staked_SK, payoff_S, step, restarts=True)
    for stream in range(3):
        capital = Capital.new(restarts=True)
        for payoff in payoffs_TS[:, stream]:
            capital = capital.after(float(payoff))
        assert capital.value == value(staked_SK, 50, restarts=True)[stream]


@given(st.floats(-50, 50))
def test_a_factor_is_positive_and_its_logarithm_at_most_the_fraction_of_the_payoff(payoff: float) -> None:
    factor_K = growth([payoff])[0]
    assert (factor_K > 0).all()
    assert (np.log(factor_K) <= np.asarray(FRACTIONS) * payoff + 1e-12).all()


def test_an_infinite_loss_takes_all_that_is_staked() -> None:
    assert Capital.new(restarts=False).after(-math.inf).value == 0
    assert Capital.new(restarts=True).after(-math.inf).value == 0.5


def test_after_a_long_quiet_time_the_evidence_of_a_shift_comes_soon() -> None:
    """A capital without restarts is the control: what it lost must be won back first."""
    needed = {}
    for restarts in (True, False):
        capital = Capital.new(restarts=restarts)
        for _ in range(2000):
            capital = capital.after(-0.5)
        needed[restarts] = 0
        while capital.value < 100 and needed[restarts] < 200:
            capital, needed[restarts] = capital.after(1.0), needed[restarts] + 1
    # ln(200 × 7 fractions × 1/release after 2000 steps) / ln 1.9 = 31.
    assert needed[True] <= 32
    assert needed[False] >= 60


def test_overwhelming_evidence_stays_a_number_of_json() -> None:
    capital = Capital.new(restarts=True)
    for _ in range(2000):
        capital = capital.after(15.0)
    assert Capital.model_validate_json(capital.model_dump_json()) == capital
    assert capital.value == 1e300


@pytest.mark.parametrize("payoff", [math.nan, math.inf])
def test_what_is_no_payoff_is_refused(payoff: float) -> None:
    with pytest.raises(ValueError, match="payoff"):
        Capital.new(restarts=True).after(payoff)


def test_all_attempts_together_spend_alpha() -> None:
    parts = [spent(0.01, attempt) for attempt in range(1, 10_001)]
    assert parts[0] == 0.005
    assert 0.01 * (1 - 1e-3) < sum(parts) < 0.01
    with pytest.raises(ValueError, match="from 1"):
        spent(0.01, 0)
