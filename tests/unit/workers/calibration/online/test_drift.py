"""The drift alarm: false alarms under continuous looking, delays, clearing, episodes."""

import math

import numpy as np
import pytest

from app.contracts.deployment import DriftState
from tests.bench.online import (
    NEVER,
    Draw,
    alarms,
    autocorrelated,
    clearings,
    lognormal,
    shifted,
    stream,
    two_point,
)
from workers.calibration.online.drift import DriftDecision, DriftDetector, DriftMemory

DETECTOR = DriftDetector.new(0.3, alpha=0.01)


def fed(
    values: list[float], detector: DriftDetector = DETECTOR, memory: DriftMemory | None = None
) -> tuple[DriftMemory, list[DriftDecision]]:
    memory = memory or detector.start()
    decisions = []
    for value in values:
        memory, decision = detector.update(memory, value)
        decisions.append(decision)
    return memory, decisions


def alarmed() -> DriftMemory:
    memory, decisions = fed([1.2] * 20)
    assert decisions[-1].state is DriftState.ALARM
    return memory


@pytest.mark.parametrize(
    "draw",
    [two_point(0.3, 32 * 0.3), two_point(0.3, 0.6), lognormal(0.3, 0.5), lognormal(0.3, 1.0), lognormal(0.3, 1.5)],
    ids=["extreme", "even", "sigma_0.5", "sigma_1", "sigma_1.5"],
)
def test_of_500_null_streams_of_5000_requests_a_share_of_alpha_at_most_ever_alarms(draw: Draw) -> None:
    """At the very border of the null, looking after every request."""
    first_S = alarms(DETECTOR, stream(draw, streams=500, requests=5000, seed=1))
    assert (first_S != NEVER).mean() <= DETECTOR.alpha


def test_a_large_alpha_is_kept_too_and_not_by_being_deaf() -> None:
    detector = DriftDetector.new(0.3, alpha=0.5)
    rate = (alarms(detector, stream(two_point(0.3, 0.6), streams=2000, requests=2000, seed=2)) != NEVER).mean()
    assert 0.05 < rate <= 0.25  # the first episode may use α/2


@pytest.mark.parametrize(
    ("factor", "most"), [(1.2, 400), (1.5, 80), (2.0, 40), (4.0, 18)], ids=["x1.2", "x1.5", "x2", "x4"]
)
def test_a_shift_after_5000_quiet_requests_is_found_soon(factor: float, most: int) -> None:
    """`most`: 1.1 to 1.7 times the median of docs/online.md, for requests that spread by sigma 0.5."""
    values = shifted(
        lognormal(0.2, 0.5), lognormal(0.3 * factor, 0.5), at=5000, streams=200, requests=5000 + 2 * most, seed=3
    )
    first_S = alarms(DETECTOR, values)
    assert (first_S == NEVER).sum() == 0
    assert 0 < np.median(first_S) - 5000 <= most


def test_neighbours_that_resemble_each_other_need_room_below_the_threshold() -> None:
    """The null is about the mean given what came before. An autocorrelated stream whose long-run mean stands at the
    threshold breaks it; with the room that the default threshold leaves, it does not alarm."""

    def rate(mean: float) -> float:
        values = autocorrelated(0.3 * mean, 0.5, 0.6, streams=300, requests=3000, seed=4)
        return float((alarms(DETECTOR, values) != NEVER).mean())

    assert rate(1.0) > 0.1
    assert rate(1 / 1.5) <= DETECTOR.alpha


@pytest.mark.parametrize("sigma", [0.5, 1.0, 1.5])
def test_an_alarm_is_seldom_cleared_while_the_mean_is_at_the_threshold(sigma: float) -> None:
    first_S = clearings(DETECTOR, stream(lognormal(0.3, sigma), streams=500, requests=2000, seed=5))
    assert (first_S != NEVER).mean() <= DETECTOR.relief_alpha


def test_the_simulation_and_the_detector_are_the_same() -> None:
    rng = np.random.default_rng(6)
    before, after = 0.45 * rng.exponential(size=(400, 4)), 0.1 * rng.exponential(size=(600, 4))
    first_S, cleared_S = alarms(DETECTOR, before), clearings(DETECTOR, after)
    for index in range(4):
        memory, decisions = fed([float(value) for value in before[: first_S[index], index]])
        assert [decision.raised for decision in decisions].index(True) + 1 == first_S[index]
        _, decisions = fed([float(value) for value in after[: cleared_S[index], index]], memory=memory)
        assert [decision.cleared for decision in decisions].index(True) + 1 == cleared_S[index]


def test_the_first_requests_are_learning_and_an_alarm_may_come_at_once() -> None:
    memory, decisions = fed([0.1] * 25)
    assert memory.episode == 1
    assert [decision.state for decision in decisions] == [DriftState.LEARNING] * 19 + [DriftState.OK] * 6
    _, decisions = fed([3.0] * 10)
    assert DriftState.ALARM in {decision.state for decision in decisions}


def test_one_request_alone_never_raises_the_alarm() -> None:
    _, decisions = fed([0.2] * 100 + [1e9] + [0.2] * 100)
    assert not any(decision.raised for decision in decisions)


def test_the_alarm_lasts_between_the_two_levels_and_ends_below_the_lower() -> None:
    memory, decisions = fed([0.285] * 500, memory=alarmed())
    assert {decision.state for decision in decisions} == {DriftState.ALARM}
    assert not any(decision.raised for decision in decisions)
    memory, decisions = fed([0.1] * 300, memory=memory)
    cleared = [decision for decision in decisions if decision.cleared]
    assert len(cleared) == 1
    assert cleared[0].relief_e_value >= cleared[0].relief_level
    assert decisions[-1].state is DriftState.OK
    assert DETECTOR.state(memory) is DriftState.OK
    assert (memory.alarms, memory.episode) == (1, 2)


def test_each_episode_has_its_own_smaller_part_of_alpha() -> None:
    memory = DETECTOR.start()
    levels = []
    for _ in range(50):
        memory, decision = DETECTOR.renewed(memory)
        levels.append(decision.level)
    assert 1 / fed([0.1])[1][0].level + sum(1 / level for level in levels) < DETECTOR.alpha
    assert levels[0] == pytest.approx(600)


def test_another_version_ends_an_alarm_and_nothing_is_held_against_it() -> None:
    memory, decision = DETECTOR.renewed(alarmed())
    assert decision.cleared
    assert decision.state is DriftState.LEARNING
    assert memory.evidence.value == pytest.approx(1)
    memory, decisions = fed([1.2] * 20, memory=memory)
    assert memory.alarms == 2
    assert sum(each.raised for each in decisions) == 1
    assert not DETECTOR.renewed(DETECTOR.start())[1].cleared


@pytest.mark.parametrize("value", [None, math.inf, math.nan])
def test_a_divergence_that_is_no_number_counts_as_the_bound_and_ends_no_alarm(value: float | None) -> None:
    assert DETECTOR.update(DETECTOR.start(), value)[0] == DETECTOR.update(DETECTOR.start(), 32 * 0.3)[0]
    memory, _ = fed([0.1] * 50, memory=alarmed())
    memory, decision = DETECTOR.update(memory, value)
    assert decision.relief_e_value < 1


def test_a_negative_divergence_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        DETECTOR.update(DETECTOR.start(), -1e-3)
