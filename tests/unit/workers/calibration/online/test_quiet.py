"""The quiet alarm: the limit that live requests give, false alarms of both errors together, clusters, delays."""

import math

import numpy as np
import pytest

from tests.bench.online import NEVER, Draw, autocorrelated, lognormal, quiet_alarms, runs, shifted, stream, two_point
from workers.calibration.online.quiet import (
    BLOCKS,
    FEWEST,
    FIRST,
    RATES,
    QuietDetector,
    QuietMemory,
    dependence,
    upper_limit,
)

DETECTOR = QuietDetector(alpha=0.01)


def fed(memory: QuietMemory, count: int, value: float) -> QuietMemory:
    for _ in range(count):
        memory, _ = DETECTOR.update(memory, value)
    return memory


def limit(memory: QuietMemory) -> float:
    assert memory.rule is not None
    return memory.rule.threshold


def test_the_limit_of_a_small_case_is_what_the_formula_gives_by_hand() -> None:
    """Two values, 0.25 and 0.5, guessed as 0.125 and 0.1875: of the five rates 0.9 gives the least."""
    spread = 0.125**2 + 0.3125**2
    for tau in (1.0, 3.0):
        by_hand = [0.375 + (tau * math.log(5 / 0.01) + (math.log(1 / (1 - r)) - r) * spread) / (2 * r) for r in RATES]
        assert upper_limit(2, 0.75, spread, tau, 0.01) == pytest.approx(min(by_hand))
        assert min(by_hand) == pytest.approx(by_hand[0])


@pytest.mark.parametrize("high", [0.125, 0.3, 1.0])
def test_the_limit_is_seldom_ever_below_the_mean(high: float) -> None:
    """Values 0 or `high` of mean 0.1, looked at after each of 3,000, with an error of 0.2: seen of 1,000 streams."""
    draws = np.random.default_rng(1)
    values_TS = np.where(draws.random((3000, 1000)) < 0.1 / high, high, 0.0)
    totals_TS = values_TS.cumsum(0)
    guesses_TS = (1 / 8 + totals_TS - values_TS) / np.arange(1, 3001)[:, None]
    spread_TS = ((values_TS - guesses_TS) ** 2).cumsum(0)
    below_S = np.zeros(1000, dtype=bool)
    for count, (total_S, spread_S) in enumerate(zip(totals_TS, spread_TS, strict=True), 1):
        below_S |= upper_limit(count, total_S, spread_S, 1.0, 0.2) < 0.1
    assert below_S.mean() <= 0.2


@pytest.mark.parametrize("copies", [1, 4, 10, 100, 200])
def test_how_many_requests_are_worth_one_is_found(copies: int) -> None:
    """Runs of equal values: as many as there are copies are worth one."""
    count = 80_000
    values = np.repeat(np.random.default_rng(2).random(count // copies), copies)
    squares = [(values.reshape(-1, length).sum(1) ** 2).sum() for length in BLOCKS]
    found = dependence(count, values.sum(), ((values - values.mean()) ** 2).sum(), squares)
    assert copies <= found <= 1.3 * copies


@pytest.mark.parametrize(
    "draw",
    [two_point(0.3, 0.6), two_point(0.3, 1.5), lognormal(0.3, 0.5), lognormal(0.3, 1.5)],
    ids=["even", "rare", "sigma_0.5", "sigma_1.5"],
)
@pytest.mark.parametrize("alpha", [0.01, 0.5])
def test_streams_that_stay_as_they_began_seldom_ever_alarm(draw: Draw, alpha: float) -> None:
    first_S = quiet_alarms(QuietDetector(alpha=alpha), stream(draw, streams=300, requests=5000, seed=2))
    assert (first_S != NEVER).mean() <= alpha


@pytest.mark.parametrize("rho", [0.3, 0.6])
def test_clustered_streams_that_stay_as_they_began_seldom_ever_alarm_and_a_doubling_is_found(rho: float) -> None:
    values_TS = np.stack(list(autocorrelated(0.3, 0.5, rho, streams=300, requests=5000, seed=5)))
    assert (quiet_alarms(DETECTOR, values_TS) != NEVER).mean() <= 0.01
    values_TS[3000:] *= 2
    first_S = quiet_alarms(DETECTOR, values_TS)
    assert (first_S > 3000).mean() >= 0.99


@pytest.mark.parametrize("length", [100, 200])
@pytest.mark.parametrize("alike", [0.25, 1.0])
def test_long_runs_of_similar_requests_seldom_ever_alarm(length: int, alike: float) -> None:
    """Requests of a run share a quarter or all of their spread. A sample holds 10 runs at least."""
    values = runs(0.3, 1.0, length, alike, streams=300, requests=6000, seed=6)
    assert (quiet_alarms(DETECTOR, values) != NEVER).mean() <= 0.01


def test_the_simulation_and_the_detector_are_the_same() -> None:
    values_TS = np.stack(
        list(shifted(lognormal(0.2, 0.5), lognormal(0.5, 0.5), at=2500, streams=3, requests=2700, seed=3))
    )
    first_S = quiet_alarms(DETECTOR, values_TS)
    for index, first in enumerate(first_S):
        memory, raised = QuietMemory(), []
        for value in values_TS[:first, index]:
            memory, decision = DETECTOR.update(memory, float(value))
            raised.append(decision is not None and decision.raised)
        assert raised.index(True) + 1 == first


@pytest.mark.parametrize(("factor", "most"), [(1.2, 900), (2.0, 70)])
def test_a_rise_after_5000_quiet_requests_is_found_soon(factor: float, most: int) -> None:
    values = shifted(
        lognormal(0.2, 0.5), lognormal(0.2 * factor, 0.5), at=5000, streams=100, requests=5000 + 2 * most, seed=4
    )
    first_S = quiet_alarms(DETECTOR, values)
    assert 0 < np.median(first_S) - 5000 <= most


def test_a_slow_rise_does_not_raise_the_limit_and_the_alarm_teaches_nothing() -> None:
    memory = fed(QuietMemory(), 3020, 0.1)
    first = limit(memory)
    for step in range(400):
        memory, _ = DETECTOR.update(memory, 0.1 + 0.001 * step)
        assert limit(memory) <= first
    assert memory.drift.relief is not None
    learned = memory.learned
    assert fed(memory, 1, 0.5).learned == learned


def test_another_version_only_lowers_the_limit_and_another_drift_limit_forgets_it() -> None:
    memory = fed(QuietMemory(), FIRST + FEWEST, 0.1)
    first = limit(memory)
    memory, _ = DETECTOR.renewed(memory, keep=True)
    assert limit(memory) == first
    memory = fed(memory, FIRST + FEWEST, 0.05)
    assert 0.05 < limit(memory) < first
    lower = limit(memory)
    memory, _ = DETECTOR.renewed(memory, keep=True)
    memory = fed(memory, FIRST + FEWEST, 0.2)
    assert limit(memory) == lower
    assert memory.drift.relief is not None
    memory, decision = DETECTOR.renewed(memory, keep=False)
    assert decision is not None and decision.cleared
    assert (memory.rule, memory.attempt, memory.drift.episode) == (None, 4, 4)


def test_each_attempt_has_its_own_smaller_part_of_alpha() -> None:
    limits = [limit(fed(QuietMemory(attempt=attempt), FIRST + FEWEST, 0.1)) for attempt in (1, 2, 8)]
    assert limits == sorted(limits)
    assert len(set(limits)) == 3
